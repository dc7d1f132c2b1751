"""A profile folder: weights, calibration and operating point that belong together, bound by their hashes.

Knows no torch: `check` and `deliver` read profiles too. Layout of a folder:

    profile.yaml         what it is, its network and input, which finding it judges and in whom, sha256 of the others
    weights.safetensors  `network.*` parameters and `distance.*` statistics of the training features
    calibration.yaml     logit -> probability, thresholds; names the weights' sha256 it was fitted on
    metrics.json, MODEL_CARD.md   written by `cxr-node evaluate` and `cxr-node calibrate`
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr_node.config import strict_yaml
from cxr_node.domain import PNEUMONIA, OperatingPoint, Scale, Target, Verdict
from cxr_node.errors import ForeignProfileError, ModelError

FORMAT = 1
Schema = TypeVar("Schema", bound=BaseModel)
BOUND_FILES = ("weights.safetensors", "calibration.yaml")


class Strict(BaseModel):
    """A section of a file: every key is known, none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Normalisation(StrEnum):
    """How grey values reach the network."""

    STANDARDISED = "standardised"
    """Clipped to their central range, mean 0, standard deviation 1."""
    XRV = "xrv"
    """TorchXRayVision's: [-1024, 1024] over the whole range, the central square, no border cut."""


class Geometry(StrEnum):
    """How a film that is no square becomes one."""

    SQUASHED = "squashed"
    """Both sides stretched to the grid: the shape of the film shows in the shape of the chest."""
    LETTERBOX = "letterbox"
    """The film keeps its shape, centred between bars that are 0 and count in no mean."""


class Margins(StrEnum):
    """What becomes of an image's edges where nothing was recorded (`preprocess.film`)."""

    SHOWN = "shown"
    CUT = "cut"


class Shown(StrEnum):
    """A way to show a radiograph that must not change its meaning (`preprocess.views`)."""

    PLAIN = "plain"
    """As it is: what the heat map, the distance and the features are of."""
    CLOSER = "closer"
    BLURRED = "blurred"
    BRIGHTER = "brighter"


class InputSpec(Strict):
    """How a radiograph becomes the network's input; the same in training and in serving."""

    size_px: int = Field(ge=32, le=2048)
    """The network sees size_px x size_px."""
    border: float = Field(ge=0.0, lt=0.25)
    """Share of rows and columns cut from each side before resizing (side markers live there)."""
    normalisation: Normalisation = Normalisation.STANDARDISED
    geometry: Geometry = Geometry.SQUASHED
    margins: Margins = Margins.SHOWN
    views: tuple[Shown, ...] = tuple(Shown)
    """Whose mean is the answer and whose spread a reason to abstain; each costs a pass through the network."""
    shape_px: int | None = Field(default=None, ge=32, le=2048)
    """Side of a second picture of the film, in its own shape between bars; None: the network sees one picture."""

    @property
    def pictures(self) -> int:
        """How many pictures of a film the network sees at once."""
        return 1 if self.shape_px is None else 2

    @property
    def side_px(self) -> int:
        """Side of the largest of them; a smaller one lies in the upper left corner."""
        return max(self.size_px, self.shape_px or 0)

    @property
    def of_pictures(self) -> tuple[Self, ...]:
        """How each is made."""
        first = self.model_copy(update={"shape_px": None})
        if self.shape_px is None:
            return (first,)
        shaped = {"size_px": self.shape_px, "border": 0.0, "geometry": Geometry.LETTERBOX}
        return first, first.model_copy(update=shaped)

    @property
    def keeps_shape(self) -> bool:
        """Whether any of them shows the film in its own shape."""
        return any(each.geometry is Geometry.LETTERBOX for each in self.of_pictures)

    @model_validator(mode="after")
    def _two_views_of_which_the_first_is_plain(self) -> Self:
        if self.views[:1] != (Shown.PLAIN,) or len(self.views) < 2 or len(set(self.views)) < len(self.views):
            raise ValueError("views must be plain, and at least one other: a single view never disagrees")
        return self

    @model_validator(mode="after")
    def _forms_that_have_no_border(self) -> Self:
        if self.normalisation is Normalisation.XRV and self.border:
            raise ValueError("with normalisation xrv the border must be 0: the published networks saw whole squares")
        if self.geometry is Geometry.LETTERBOX and (self.border or self.normalisation is Normalisation.XRV):
            raise ValueError("geometry letterbox shows whole films: border must be 0, normalisation standardised")
        if self.margins is Margins.CUT and self.normalisation is Normalisation.XRV:
            raise ValueError("with normalisation xrv margins are shown: the published networks saw them")
        if self.shape_px and (self.geometry is Geometry.LETTERBOX or self.normalisation is Normalisation.XRV):
            raise ValueError("shape_px adds a letterbox to a squashed, standardised picture")
        return self


class NetworkSpec(Strict):
    """Which builder of `model.networks.ARCHITECTURES`, and its options."""

    architecture: str
    options: dict[str, Any] = {}
    classes: dict[str, bool] = {}
    """Where the network answers a softmax over several classes: each one's name, and whether it counts as positive
    for the judged label. The profile's labels are then the judged one and these (`model.network.OverClasses`)."""


class Population(Strict):
    """Whom the profile may judge: what its training data covered."""

    age_years: tuple[float, float]
    """Youngest and oldest age in completed years, both inclusive."""
    description: str


_ASCII = r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"
"""Printable, without backslash, and without a space at either end."""
_ShortString = Annotated[str, Field(pattern=_ASCII, max_length=16)]  # SH


class CodeFile(Strict):
    """A coded concept (PS3.3 8.8)."""

    value: _ShortString
    scheme: _ShortString
    meaning: str = Field(pattern=_ASCII, max_length=64)


class TargetFile(Strict):
    """domain.Target as profile.yaml writes it: what the verdicts are about."""

    finding: str = Field(pattern=r"^[A-Za-z]([A-Za-z0-9 -]*[A-Za-z0-9])?$", max_length=22)
    """So long that a series description has room for it (LO, 64 characters)."""
    code: CodeFile

    @model_validator(mode="after")
    def _is_no_verdict(self) -> Self:
        if self.finding.upper() in {*Verdict, *Verdict.__members__}:
            raise ValueError(f"finding must not be the name of a verdict ({self.finding})")
        return self

    def read(self) -> Target:
        """Make the target of it."""
        return Target(finding=self.finding, code=(self.code.value, self.code.scheme, self.code.meaning))


class ProfileFile(Strict):
    """profile.yaml."""

    format: int
    name: str
    version: str
    labels: list[str]
    """One logit each, in this order."""
    network: NetworkSpec
    input: InputSpec
    population: Population
    target: TargetFile | None = None
    """None: pneumonia; then the judged label must say so."""
    sha256: dict[str, str]
    licence: str
    citation: str

    @model_validator(mode="after")
    def _labels_name_the_classes(self) -> ProfileFile:
        if self.network.classes and self.labels[1:] != list(self.network.classes):
            raise ValueError("labels must be the judged label and then network.classes, in this order")
        return self

    @property
    def named_target(self) -> Target:
        """What the verdicts are about."""
        return PNEUMONIA if self.target is None else self.target.read()


class OperatingPointFile(Strict):
    """domain.OperatingPoint as calibration.yaml writes it."""

    name: str
    label: str
    report_at: float
    rule_out_below: float
    max_spread: float
    max_distance: float | None
    """null: weights.safetensors holds no `distance.*`, and no image is found unlike the training data."""
    rule_out_max_distance: float | None = None
    """See there: below `max_distance`, for what is ruled out."""

    @model_validator(mode="after")
    def _ruled_out_is_nearer(self) -> Self:
        if (nearer := self.rule_out_max_distance) is not None and nearer > (self.max_distance or 0.0):
            raise ValueError("rule_out_max_distance must not be more than max_distance")
        return self


class GuaranteeFile(Strict):
    """What the thresholds promise of patients drawn like those they were chosen on; shares in (0, 1)."""

    ppv: float
    """Of the patients called positive, at least this share is."""
    npv: float
    confidence: float
    """Probability, over draws of the calibration patients, that both hold."""
    prevalence: float
    """Share of positives for which they hold."""
    positive_patients: int
    negative_patients: int
    method: str


class CalibrationFile(Strict):
    """calibration.yaml: p = sigmoid(slope * logit + intercept) (Platt 1999)."""

    weights_sha256: str
    method: str
    fitted_on: str
    slope: float = Field(gt=0.0)
    intercept: float
    operating_point: OperatingPointFile
    guarantee: GuaranteeFile | None = None
    """None: the thresholds were placed by a budget of abstentions, which promises nothing."""
    op_norm: list[float | None] | None = None
    """TorchXRayVision's operating point of each label, which becomes 0.5; null for a label that was not trained.
    Where it is given, the numbers are scores and no probabilities (`model.torchxrayvision.op_norm`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile whose hashes were verified."""

    folder: Path
    name: str
    version: str
    labels: tuple[str, ...]
    network: NetworkSpec
    input: InputSpec
    population: Population
    slope: float
    intercept: float
    calibration: str
    operating_point: OperatingPoint
    weights_sha256: str
    calibration_sha256: str
    op_norm: tuple[float | None, ...] | None = None
    target: Target = PNEUMONIA
    site: tuple[float, float] | None = None
    """Slope and intercept of a site's own calibration over the calibrated probability (`model.site_calibration`)."""

    @property
    def answered(self) -> tuple[str, ...]:
        """Labels with a number of their own: all but the classes that one of them is divided among."""
        return tuple(label for label in self.labels if label not in self.network.classes)

    @property
    def judged(self) -> int:
        """Which logit the operating point judges."""
        return self.labels.index(self.operating_point.label)

    @property
    def weights_path(self) -> Path:
        """Where the verified weights lie."""
        return self.folder / "weights.safetensors"


def load(folder: Path) -> Profile:
    """Read and verify a profile folder.

    Raises ForeignProfileError: another version of this program wrote it; ModelError: a file is missing or malformed, or
    a hash does not match; the message names both hashes.
    """
    described = described_in(folder)
    found = {name: as_released(folder, described, name) for name in BOUND_FILES}
    calibrated = read(folder / "calibration.yaml", CalibrationFile)
    if calibrated.weights_sha256 != found["weights.safetensors"]:
        raise ModelError(
            f"{folder}/calibration.yaml was fitted on weights {calibrated.weights_sha256}, "
            f"the folder holds {found['weights.safetensors']}. Run cxr-node calibrate."
        )
    point = _operating_point(folder, described, calibrated)
    return Profile(
        folder=folder,
        name=described.name,
        version=described.version,
        labels=tuple(described.labels),
        network=described.network,
        input=described.input,
        population=described.population,
        slope=calibrated.slope,
        intercept=calibrated.intercept,
        calibration=f"{calibrated.method}, fitted on {calibrated.fitted_on}",
        operating_point=point,
        weights_sha256=calibrated.weights_sha256,
        calibration_sha256=found["calibration.yaml"],
        op_norm=tuple(calibrated.op_norm) if calibrated.op_norm is not None else None,
        target=described.named_target,
    )


def as_released(folder: Path, described: ProfileFile, name: str) -> str:
    """Take the sha256 of a file of the profile, which must be the one that profile.yaml names.

    Raises ModelError: it is another, or the file cannot be read; the message names both.
    """
    found = sha256(folder / name)
    if found != (expected := described.sha256.get(name)):
        raise ModelError(
            f"{folder / name} is not the file that the profile was released with: sha256 is {found}, "
            f"profile.yaml says {expected}. Restore the profile folder."
        )
    return found


def described_in(folder: Path) -> ProfileFile:
    """Read profile.yaml, without asking for weights or a calibration that fit.

    Raises ForeignProfileError: another version of this program wrote it; ModelError: it is missing or malformed.
    """
    content = _parsed(folder / "profile.yaml")
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found != FORMAT:  # first: another format may have other keys
        raise ForeignProfileError(f"{folder}/profile.yaml is of format {found}; this version reads format {FORMAT}")
    return read(folder / "profile.yaml", ProfileFile)


def _operating_point(folder: Path, described: ProfileFile, calibrated: CalibrationFile) -> OperatingPoint:
    """Take the operating point, where the network has a trained answer to judge by it."""
    scale = Scale.PROBABILITY if calibrated.op_norm is None else Scale.SCORE
    point = OperatingPoint(**calibrated.operating_point.model_dump(), scale=scale)
    if point.label not in described.labels:
        raise ModelError(f"{folder}: operating point is for {point.label!r}, the network answers {described.labels}")
    if described.target is None and PNEUMONIA.finding not in point.label.casefold():
        raise ModelError(f"{folder}: {point.label!r} is judged, and profile.yaml has no target: that names the finding")
    if calibrated.op_norm is not None:
        if len(calibrated.op_norm) != len(described.labels):
            raise ModelError(
                f"{folder}: op_norm has {len(calibrated.op_norm)} values for {len(described.labels)} labels"
            )
        if calibrated.op_norm[described.labels.index(point.label)] is None:
            raise ModelError(f"{folder}: {point.label!r} is judged, but these weights were not trained for it")
    return point


def write(folder: Path, described: ProfileFile, calibrated: CalibrationFile) -> None:
    """Write profile.yaml and calibration.yaml beside existing weights, hashes filled in from the files."""
    weights_sha256 = sha256(folder / "weights.safetensors")
    calibrated = calibrated.model_copy(update={"weights_sha256": weights_sha256})
    _dump(folder / "calibration.yaml", calibrated)
    hashes = {name: sha256(folder / name) for name in BOUND_FILES}
    _dump(folder / "profile.yaml", described.model_copy(update={"sha256": hashes}))


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises ModelError: the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def read(path: Path, schema: type[Schema]) -> Schema:
    """Read a YAML file of a profile. Raises ModelError: it is missing or malformed; one sentence for each mistake."""
    content = _parsed(path)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        mistakes = "; ".join(f"{strict_yaml.key_path(e['loc'], content) or 'file'}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{path} is malformed: {mistakes}") from error


def _parsed(path: Path) -> Any:
    try:
        return strict_yaml.load(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is malformed: {' '.join(str(error).split())}") from error


def _dump(path: Path, content: BaseModel) -> None:
    text = yaml.safe_dump(content.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    path.write_text(text, "utf-8")
