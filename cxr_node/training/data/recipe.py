"""A training recipe: every option of `cxr-node train`, strict and documented in config/train/*.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from cxr_node.config import strict_yaml
from cxr_node.errors import ConfigError
from cxr_node.model.profile import Geometry, InputSpec, NetworkSpec, Strict
from cxr_node.training.data.recipe_sections import (
    AugmentSection,
    Balance,
    DataSection,
    DistillationSection,
    LessonsSection,
    OperatingSection,
    OpinionsSection,
    PretrainingSection,
    ProfileSection,
    ScheduleSection,
    SecondSection,
    Served,
    ShapedSection,
    TogetherSection,
    TwiceSection,
)


class Recipe(Strict):
    """One training, from a folder of images to a profile folder."""

    seed: int
    threads: int = Field(ge=1)
    profile: ProfileSection
    network: NetworkSpec
    initial_weights: str | None
    input: InputSpec
    data: DataSection
    pretraining: PretrainingSection | None = None
    schedule: ScheduleSection
    augment: AugmentSection
    lessons: LessonsSection | None = None
    together: TogetherSection | None = None
    twice: TwiceSection | None = None
    distillation: DistillationSection | None = None
    opinions: OpinionsSection | None = None
    second: SecondSection | None = None
    shaped: ShapedSection | None = None
    average_with: tuple[str, ...] = ()
    """Checkpoints of other trainings of the same network whose weights are averaged into the last ones."""
    operating: OperatingSection

    @model_validator(mode="after")
    def _edges_need_a_film(self) -> Recipe:
        edges = self.augment.cut + self.augment.margin + self.augment.open_bars
        if self.input.geometry is Geometry.SQUASHED and (edges > 0.0 or (self.data.shapes and not self.shaped)):
            raise ValueError("augment.cut, margin, open_bars and data.shapes are for input.geometry: letterbox")
        return self

    @model_validator(mode="after")
    def _one_answer_to_teach(self) -> Recipe:
        beside = (self.together, self.twice, self.distillation)
        if any(beside) and (self.data.classes or self.schedule.mixup_alpha + self.schedule.cutmix_alpha > 0.0):
            raise ValueError("together, twice and distillation are for one judged label, without mixing of images")
        if (self.together or self.data.strata) and self.schedule.balance is not Balance.SAMPLING:
            raise ValueError("together and data.strata draw equal shares: schedule.balance must be sampling")
        if self.together and self.distillation is None and any(one.teachers for one in self.together.populations):
            raise ValueError("teachers of a population need the section distillation")
        return self

    @model_validator(mode="after")
    def _a_second_opinion_has_a_first(self) -> Recipe:
        if self.second and (self.network.architecture != "mobilenet-v2" or self.data.classes):
            raise ValueError("second is for architecture mobilenet-v2 with one judged label")
        if (self.second is None) != (self.opinions is None):
            raise ValueError("second and opinions need each other: what is added is fitted there")
        if self.opinions and self.opinions.cut_weight > 0.0 and not self.data.shapes:
            raise ValueError("opinions.cut_weight needs data.shapes: which films have which shape")
        if self.second and self.network.options.get("hidden"):
            raise ValueError("second is added to a network with one linear layer: no option hidden")
        if self.shaped and not self.second:
            raise ValueError("shaped is added to a network with a second opinion")
        if self.input.shape_px:
            raise ValueError("input.shape_px comes of the section shaped: leave it out")
        return self

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Recipe:
        if self.data.validation + self.data.calibration >= 0.8:
            raise ValueError("data.validation + data.calibration must leave at least a fifth for training")
        if self.lessons is not None and self.schedule.mixup_alpha + self.schedule.cutmix_alpha > 0.0:
            raise ValueError("lessons point at places of one image, mixup_alpha and cutmix_alpha mix two: choose")
        if self.network.classes:
            raise ValueError("network.classes is for profiles; a recipe names them in data.classes")
        return self

    def seen_px(self, epoch: int) -> int:
        """Side of the images that an epoch shows, the first one being 0; those before it are as small."""
        return self.schedule.small_px if epoch < self.schedule.small_epochs else self.input.size_px

    @property
    def label(self) -> str:
        """The label that is judged."""
        return self.data.positive

    @property
    def words(self) -> dict[str, bool]:
        """Word in the label column -> whether it counts as positive."""
        data = self.data
        return {word: side == data.positive for word, side in (data.classes or data.words).items()} or {
            data.negative: False,
            data.positive: True,
        }

    @property
    def sides(self) -> tuple[bool, ...]:
        """Whether each class that is learned is positive; two, where there are not more."""
        return tuple(self.words.values()) if self.data.classes else (False, True)

    @property
    def heads(self) -> int:
        """How many logits the network has while it learns: one for each population, or those of its labels."""
        return 1 + len(self.together.populations) if self.together else len(self.labels)

    @property
    def serves(self) -> int:
        """How many of these, from the first on, are averaged into the answer."""
        return self.heads if self.together and self.together.served is Served.MEAN else 1

    @property
    def labels(self) -> list[str]:
        """What the network answers, one logit each: the judged label, then the classes where there are several."""
        return [self.label, *self.data.classes]

    @property
    def network_spec(self) -> NetworkSpec:
        """The network with the classes that it answers, as it learns."""
        return self.network.model_copy(update={"classes": self.words if self.data.classes else {}})

    @property
    def profile_spec(self) -> NetworkSpec:
        """The network that is served: with the opinions that are added."""
        if self.shaped is None:
            return self.second_spec
        options = self.second_spec.options | {"size_px": self.input.size_px}
        return NetworkSpec(architecture=f"{self.network.architecture}-shaped", options=options)

    @property
    def second_spec(self) -> NetworkSpec:
        """The network with its second opinion, where there is one."""
        if self.second is None:
            return self.network_spec
        options = self.network.options | {"second_px": self.second.size_px}
        return NetworkSpec(architecture=f"{self.network.architecture}-second", options=options)

    @property
    def served_input(self) -> InputSpec:
        """How films are shown to the network that is served."""
        return self.input.model_copy(update={"shape_px": self.shaped.size_px}) if self.shaped else self.input


def read(path: Path) -> Recipe:
    """Read a recipe file.

    Raises ConfigError: the file cannot be read or a key is unknown, missing or out of range; one line per mistake.
    """
    try:
        content = strict_yaml.load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except strict_yaml.TwiceError as error:
        raise ConfigError([f"{path}: {sentence}" for sentence in error.sentences]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no recipe: it holds no keys")
    return parse(content, str(path))


def parse(content: Any, source: str) -> Recipe:
    """Check a recipe's content; `source` names it in messages."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        mistakes = [
            f"{source}: {strict_yaml.key_path(e['loc'], content) or 'recipe'}: {e['msg']}" for e in error.errors()
        ]
        raise ConfigError(mistakes) from error
