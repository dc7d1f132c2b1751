"""A training recipe: every option of `cxr-node train`, strict and documented in config/train/*.yaml.

Knows no torch and opens no image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr_node.errors import ConfigError
from cxr_node.model.profile import InputSpec, NetworkSpec, Population


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileSection(_Strict):
    """What the resulting profile says of itself."""

    name: str
    version: str
    population: Population
    licence: str
    citation: str
    limits: list[str]
    tried: list[str]


class DataSection(_Strict):
    """Which words in the data mean what, and how patients are dealt out."""

    positive: str
    negative: str
    source_px: int = Field(ge=32, le=1024)
    validation: float = Field(gt=0.0, lt=0.5)
    calibration: float = Field(gt=0.0, lt=0.5)


class ScheduleSection(_Strict):
    """How long, how fast, and what is averaged."""

    epochs: int = Field(ge=1)
    images_per_epoch: int = Field(ge=1)
    batch: int = Field(ge=2, multiple_of=2)
    learning_rate: float = Field(gt=0.0)
    head_factor: float = Field(gt=0.0)
    warmup: float = Field(ge=0.0, lt=1.0)
    weight_decay: float = Field(ge=0.0)
    clip_norm: float = Field(gt=0.0)
    label_smoothing: float = Field(ge=0.0, lt=1.0)
    mixup_alpha: float = Field(ge=0.0)
    ema_decay: float = Field(ge=0.0, lt=1.0)
    average_epochs: int = Field(ge=1)
    small_epochs: int = Field(0, ge=0)
    small_px: int = Field(160, ge=32)
    bfloat16: bool


class AugmentSection(_Strict):
    """Shares (0 to 1) are of images; ranges are half-widths round "no change" unless said otherwise."""

    opacity: float = Field(0.0, ge=0.0, le=1.0)
    style: float = Field(0.0, ge=0.0, le=1.0)
    surround: float = Field(0.0, ge=0.0, le=1.0)
    marks: float = Field(ge=0.0, le=1.0)
    wipe: float = Field(ge=0.0, le=1.0)
    mirror: float = Field(ge=0.0, le=1.0)
    rotate_deg: float = Field(ge=0.0, le=45.0)
    scale: float = Field(ge=0.0, lt=0.5)
    aspect: float = Field(ge=0.0, lt=0.5)
    shift: float = Field(ge=0.0, lt=0.5)
    gamma: float = Field(ge=0.0, le=2.0)
    contrast: float = Field(ge=0.0, lt=1.0)
    unevenness: float = Field(ge=0.0, lt=1.0)
    blur_px: float = Field(ge=0.0, le=5.0)
    sharpen: float = Field(ge=0.0, le=2.0)
    noise: float = Field(ge=0.0, le=0.5)
    recompress: float = Field(ge=0.0, le=1.0)
    recompress_quality: tuple[int, int]


class StrangersSection(_Strict):
    """Unlabelled images of another population: rows of a manifest whose `column` holds `word`."""

    folder: str
    column: str
    word: str


class LessonsSection(_Strict):
    """What is taught beside the labels; weights are of terms of the loss, counts are per batch."""

    outsiders: int = Field(ge=1)
    outsider_weight: float = Field(ge=0.0)
    strangers: StrangersSection | None
    pairs: int = Field(ge=0)
    pair_weight: float = Field(ge=0.0)
    pair_margin: float = Field(ge=0.0)
    outside_weight: float = Field(ge=0.0)
    drawn_weight: float = Field(ge=0.0)


class GuaranteeSection(_Strict):
    """Predictive values that the thresholds must keep; see `training.guarantee`."""

    ppv: float = Field(ge=0.5, lt=1.0)
    npv: float = Field(ge=0.5, lt=1.0)
    confidence: float = Field(ge=0.5, lt=1.0)


class OperatingSection(_Strict):
    """How probabilities are calibrated and where verdicts begin: by a budget of abstentions or by a guarantee."""

    name: str
    prevalence: float = Field(gt=0.0, lt=1.0)
    corrupted_copies: int = Field(ge=0)
    abstain: float | None = Field(default=None, ge=0.0, lt=0.5)
    guarantee: GuaranteeSection | None = None
    spread_quantile: float = Field(gt=0.5, le=1.0)
    max_distance: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _one_way_to_thresholds(self) -> OperatingSection:
        if (self.abstain is None) == (self.guarantee is None):
            raise ValueError("give either abstain or guarantee")
        return self


class Recipe(_Strict):
    """One training, from a folder of images to a profile folder."""

    seed: int
    threads: int = Field(ge=1)
    profile: ProfileSection
    network: NetworkSpec
    initial_weights: str | None
    input: InputSpec
    data: DataSection
    schedule: ScheduleSection
    augment: AugmentSection
    lessons: LessonsSection | None = None
    operating: OperatingSection

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Recipe:
        if self.data.validation + self.data.calibration >= 0.8:
            raise ValueError("data.validation + data.calibration must leave at least a fifth for training")
        return self

    @property
    def label(self) -> str:
        """The one label that the network answers."""
        return self.data.positive


def read(path: Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    ConfigError : the file cannot be read or a key is unknown, missing or out of range; one line per mistake
    """
    try:
        return parse(yaml.safe_load(path.read_text("utf-8")), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error


def parse(content: Any, source: str) -> Recipe:
    """Check a recipe's content; `source` names it in messages."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        mistakes = [f"{source}: {'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(mistakes) from error
