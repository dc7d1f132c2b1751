"""The sections of a training recipe, one class each; config/train/*.yaml explain every key."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from cxr_node.model.profile import Population, Strict


class ProfileSection(Strict):
    """What the resulting profile says of itself."""

    name: str
    version: str
    claimed: str = ""
    """What its own authors reached, for comparison."""
    population: Population
    licence: str
    citation: str
    limits: list[str]
    tried: list[str]


class Balance(StrEnum):
    """How classes of unequal size get an equal say."""

    SAMPLING = "sampling"
    WEIGHTS = "weights"
    NONE = "none"


class FrozenPart(StrEnum):
    """What of a network is kept as it is while the rest learns."""

    EARLY = "early"
    TRUNK = "trunk"


class Watch(StrEnum):
    """The figure on the validation part by which anything is chosen during training."""

    AUC = "auc"
    LOG_LOSS = "log_loss"


class ShapesSection(Strict):
    """Width and height of films whose files were squashed: a manifest and its columns."""

    manifest: str
    file: str
    columns: str
    rows: str


class DataSection(Strict):
    """Which words in the data mean what, and how patients are dealt out."""

    positive: str
    negative: str
    column: str = "label"
    classes: dict[str, str] = Field(default={})
    """Word in the column -> `positive` or `negative`, for a softmax over more than two classes; else empty."""
    words: dict[str, str] = Field(default={})
    """Word in the column -> `positive` or `negative`, where the data word them otherwise; else empty."""
    spared: tuple[str, ...] = ()
    """Negative words into whose images no opacity is drawn, and that teach no other head: ill without it."""
    strata: str | None = None
    """Column of the manifest: each of its values is drawn as often as another, of each word."""
    shapes: ShapesSection | None = None
    """For a letterbox, where files were squashed; films that it does not list have lost their shape."""
    source_px: int = Field(ge=32, le=1024)
    validation: float = Field(gt=0.0, lt=0.5)
    calibration: float = Field(gt=0.0, lt=0.5)

    @model_validator(mode="after")
    def _classes_have_two_sides(self) -> DataSection:
        sides = {self.positive, self.negative}
        if len(sides) < 2:
            raise ValueError("positive and negative must be different words")
        if self.classes and (len(self.classes) < 3 or set(self.classes.values()) != sides):
            raise ValueError(f"classes must be three or more, each {self.positive} or {self.negative}, some of both")
        if self.words and (self.classes or set(self.words.values()) != sides):
            raise ValueError(f"words must each be {self.positive} or {self.negative}, some of both, without classes")
        if not {*self.spared} <= {*self.words, self.negative}:
            raise ValueError("spared must be negative words of the data")
        if self.positive in self.classes:
            raise ValueError(f"positive ({self.positive}) names several classes together and must not be one of them")
        return self


class ScheduleSection(Strict):
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
    balance: Balance = Balance.SAMPLING
    cutmix_alpha: float = Field(default=0.0, ge=0.0)
    frozen_epochs: int = Field(default=0, ge=0)
    frozen_part: FrozenPart = FrozenPart.TRUNK
    watch: Watch = Watch.AUC
    patience: int | None = Field(default=None, ge=1)
    seeds: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_way_to_end(self) -> ScheduleSection:
        if self.patience is not None and self.average_epochs > 1:
            raise ValueError(
                "patience keeps the best epoch, average_epochs the last ones: set one of them to null or 1"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ: two of the same are the same training")
        return self


class PretrainingSection(Strict):
    """Reconstruction of hidden parts of the training images, before any label is shown."""

    epochs: int = Field(ge=1)
    images_per_epoch: int = Field(ge=1)
    learning_rate: float = Field(gt=0.0)
    hidden: float = Field(gt=0.0, lt=1.0)
    noise: float = Field(ge=0.0, le=2.0)


class AugmentSection(Strict):
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
    cut: float = Field(0.0, ge=0.0, le=1.0)
    margin: float = Field(0.0, ge=0.0, le=1.0)
    edge_reach: float = Field(0.0, ge=0.0, le=0.25)
    open_bars: float = Field(0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _either_way(self) -> AugmentSection:
        if self.cut + self.margin > 1.0:
            raise ValueError("cut and margin are shares of the same films and must sum to at most 1")
        return self


class PopulationSection(Strict):
    """Another population that learns along: its own labels and head, the same trunk."""

    name: str
    folder: str
    column: str = "label"
    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)
    spared: tuple[str, ...] = ()
    strata: str | None = None
    shapes: ShapesSection | None = None
    share: float = Field(gt=0.0, lt=1.0)
    """Of the images shown."""
    teachers: tuple[str, ...] = ()


class Served(StrEnum):
    """What answers in the profile."""

    OWN = "own"
    MEAN = "mean"


class TogetherSection(Strict):
    """Several populations, one trunk, a head each."""

    populations: tuple[PopulationSection, ...] = Field(min_length=1)
    other_heads: float = Field(ge=0.0)
    """Weight of what the heads of other populations say of a film: an opacity is an opacity."""
    served: Served

    @model_validator(mode="after")
    def _something_is_left(self) -> TogetherSection:
        if sum(one.share for one in self.populations) >= 1.0:
            raise ValueError("the shares of populations must leave some images to the profile's own")
        if any(not {*one.spared} <= {*one.negative} for one in self.populations):
            raise ValueError("spared must be negative words of the population")
        return self


class TwiceSection(Strict):
    """Each film twice in a batch, changed in two ways: weights of the squared difference of its two answers."""

    own: float = Field(ge=0.0)
    other: float = Field(default=0.0, ge=0.0)


class OpinionsSection(Strict):
    """How the last layers of `second` and `shaped` are fitted after the training, with all trunks as they are."""

    level_sharpness: float = Field(ge=0.0, le=1.0)
    """Share of each class in which soft and sharp films weigh alike."""
    cut_weight: float = Field(ge=0.0)
    """Of films cut to the shape of one of the other class, beside 1 for each other way of showing them."""


class SecondSection(Strict):
    """A `networks.SecondOpinion` beside a learned MobileNetV2."""

    trunk: str
    """File of EfficientNet-Lite0's ImageNet features, relative to the recipe."""
    size_px: int = Field(ge=64)
    weight: float = Field(gt=0.0)
    """Spread of its logits, as a share of the network's."""
    penalty: float = Field(gt=0.0)
    """Of its squared weights, on standardised features."""


class ShapedSection(Strict):
    """A trained network that keeps the shape of films, whose answer is added to that of a network with a `second`."""

    profile: str
    """Folder of its profile, relative to the recipe: architecture efficientnet-lite0, geometry letterbox."""
    size_px: int = Field(ge=32)
    """As that profile has it."""
    weight: float = Field(gt=0.0)
    """Spread of its logits, as a share of the network's."""
    penalty: float = Field(gt=0.0)
    """Of its squared weights, on standardised features."""


class DistillationSection(Strict):
    """Profiles whose answers to the unchanged film are a second target (Hinton et al. 2015)."""

    teachers: tuple[str, ...] = Field(min_length=1)
    temperature: float = Field(ge=1.0)
    weight: float = Field(gt=0.0, le=1.0)


class StrangersSection(Strict):
    """Unlabelled images of another population: rows of a manifest whose `column` holds `word`."""

    folder: str
    column: str
    word: str


class LessonsSection(Strict):
    """What is taught beside the labels; weights are of terms of the loss, counts are per batch."""

    outsiders: int = Field(ge=1)
    outsider_weight: float = Field(ge=0.0)
    strangers: StrangersSection | None
    pairs: int = Field(ge=0)
    pair_weight: float = Field(ge=0.0)
    pair_margin: float = Field(ge=0.0)
    outside_weight: float = Field(ge=0.0)
    drawn_weight: float = Field(ge=0.0)


class GuaranteeSection(Strict):
    """Predictive values that the thresholds must keep; see `calibrate.guarantee`."""

    ppv: float = Field(ge=0.5, lt=1.0)
    npv: float = Field(ge=0.5, lt=1.0)
    confidence: float = Field(ge=0.5, lt=1.0)


class OperatingSection(Strict):
    """How probabilities are calibrated and where verdicts begin: by a budget (abstentions, errors) or a promise."""

    name: str
    prevalence: float = Field(gt=0.0, lt=1.0)
    corrupted_copies: int = Field(ge=0)
    abstain: float | None = Field(default=None, ge=0.0, lt=0.5)
    """Share of each class left between the thresholds: for classes that hardly overlap."""
    wrong: float | None = Field(default=None, gt=0.0, lt=0.5)
    """Share of each class beyond the other's threshold: for classes that overlap, however many are left between."""
    guarantee: GuaranteeSection | None = None
    spread_quantile: float = Field(gt=0.5, le=1.0)
    max_distance: float = Field(gt=0.0)
    rule_out_max_distance: float | None = Field(default=None, gt=0.0)
    """A stricter limit for what is ruled out; None: the same for all."""

    @model_validator(mode="after")
    def _one_way_to_thresholds(self) -> OperatingSection:
        if sum(way is not None for way in (self.abstain, self.wrong, self.guarantee)) != 1:
            raise ValueError("give one of abstain, wrong and guarantee")
        return self
