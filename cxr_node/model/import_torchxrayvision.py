"""A profile folder made of weights that TorchXRayVision published: state dict in, profile out.

Runs no code of the file: a state dict is tensors, and nothing else is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cxr_node.errors import DataError
from cxr_node.model import predictor, profile, torchxrayvision, weights
from cxr_node.model.networks import XrvDenseNet121
from cxr_node.model.torch_runtime import export

THRESHOLDS = "op_threshs"
"""The buffer in which a DenseNet of that package keeps its operating points once its weights are loaded."""
JUDGED = "Pneumonia"
"""The one finding for which results have a verdict; the others are scored."""
ADULTS_YEARS = (18.0, 120.0)
"""Most training images are of adults; for children nobody measured these weights."""
CITATION = (
    "Cohen et al., TorchXRayVision: A library of chest X-ray datasets and models, Medical Imaging with Deep Learning "
    "2022, arXiv:2111.00595; Cohen et al., On the limits of cross-domain generalization in automated X-ray "
    "prediction, Medical Imaging with Deep Learning 2020, arXiv:2002.02497"
)
_NEEDS_CODE = """{file} holds a whole pickled model: reading it would run code of the file, which is never done here; \
where torchxrayvision is installed, two lines of Python turn it into a state dict, which is tensors only:
  import torch, torchxrayvision
  torch.save(torch.load({name!r}, map_location="cpu", weights_only=False).state_dict(), {target!r})"""
_NOT_A_STATE = (
    RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error, SafetensorError,
)  # fmt: skip
"""What torch's unpickler raises over bytes that nobody pickled, as they come."""
_UnpicklingError: type[Exception] = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]  # by name


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the file does not tell: which finding the verdict is about, and where it begins on the scores' scale."""

    judge: str = JUDGED
    weights: str | None = None
    """Name of the published weights; None: what the file carries, or its name says."""
    report_at: float = 0.5
    rule_out_below: float = 0.5
    max_spread: float = 1.0


def run(file: Path, out: Path, choice: ImportOptions) -> profile.Profile:
    """Make a profile folder, and let it judge one drawn image.

    `file` : state dict of a torchxrayvision DenseNet: .pt as torch.save writes it, or .safetensors
    `out` : profile folder; made where it does not exist
    Raises DataError: the file is no such state dict, the choice does not fit it, or the folder holds a profile already;
    ModelError: what was written does not work here.
    """
    if (out / "profile.yaml").exists():
        raise DataError(f"{out} holds a profile already; name another folder")
    state = dict(_read(file))
    stored = state.pop(THRESHOLDS, None)
    name, thresholds = _thresholds(file, stored, choice.weights)
    point = _operating_point(choice, thresholds)
    network = _network(file, state)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}") from error
    weights.save(out / "weights.safetensors", network, {}, exact=True)
    described, calibrated = _described(name), _calibrated(name, thresholds, point)
    profile.write(out, described, calibrated)
    (out / "MODEL_CARD.md").write_text(card(described, calibrated), "utf-8")
    made = profile.load(out)
    export(made)
    predictor.load_predictor(made)
    return made


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except _UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise DataError(f"{file} is no state dict that torch.save wrote") from error
        target = f"{file.name.partition('.')[0]}.state.pt"
        raise DataError(_NEEDS_CODE.format(file=file, name=str(file), target=target)) from error
    except _NOT_A_STATE as error:
        raise DataError(f"{file} is no state dict that torch.save wrote") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise DataError(f"{file} holds something else than a state dict, that is tensors by name")
    return content


def _network(file: Path, state: Mapping[str, torch.Tensor]) -> XrvDenseNet121:
    """Put the tensors into the network, if they are exactly its own."""
    with torch.device("meta"):  # names and shapes alone: no weights are drawn to be thrown away
        network = XrvDenseNet121(len(torchxrayvision.LABELS))
    expected = network.state_dict()
    found = {_ours(name): value.float() if value.is_floating_point() else value for name, value in state.items()}
    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # not used, and old files lack them
    if missing := sorted(expected.keys() - found.keys() - counters):
        raise DataError(f"{file} is no state dict of a torchxrayvision DenseNet-121: {_theirs(missing[0])} is missing")
    if strange := sorted(found.keys() - expected.keys()):
        raise DataError(f"{file}: {_theirs(strange[0])} is no parameter of a torchxrayvision DenseNet-121")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            shapes = f"has shape {tuple(value.shape)}, not {tuple(expected[name].shape)}"
            raise DataError(f"{file}: {_theirs(name)} {shapes}; not a DenseNet-121 of one channel and 18 findings")
        if not torch.isfinite(value).all():
            raise DataError(f"{file}: {_theirs(name)} holds something that is no number")
    network.load_state_dict({**dict.fromkeys(counters, torch.tensor(0)), **found}, assign=True)
    return network.eval()


def _ours(name: str) -> str:
    return f"trunk.{name.removeprefix('features.')}" if name.startswith("features.") else name


def _theirs(name: str) -> str:
    return f"features.{name.removeprefix('trunk.')}" if name.startswith("trunk.") else name


def _thresholds(file: Path, stored: torch.Tensor | None, named: str | None) -> tuple[str, tuple[float | None, ...]]:
    """Name of the weights, and operating point of each label: those of the file, else those published."""
    known = torchxrayvision.OP_THRESHOLDS
    if named is not None and named not in known:
        raise DataError(f"--weights {named}: no such weights were published; known are {', '.join(known)}")
    if stored is None:
        name = named or torchxrayvision.published_as(file.name)
        if name is None:
            raise DataError(
                f"{file} carries no {THRESHOLDS}, and its name is none under which weights were published; "
                f"say which they are: --weights {', '.join(known)}"
            )
        return name, _trained(known[name])
    values = stored.flatten().tolist()
    if len(values) != len(torchxrayvision.LABELS) or not all(math.isnan(value) or 0 < value < 1 for value in values):
        raise DataError(f"{file}: {THRESHOLDS} must be 18 numbers between 0 and 1, or nan where nothing was trained")
    same = [name for name, published in known.items() if _trained(published) == _trained(values)]
    if named is not None and named not in same:
        raise DataError(f"--weights {named}: {file} carries other operating points than those")
    return (same[0] if same else "densenet121-res224"), _trained(values)


def _trained(values: Sequence[float]) -> tuple[float | None, ...]:
    """As float32, in which the package computes; None for not a number."""
    single = torch.tensor(values, dtype=torch.float32).tolist()
    return tuple(None if math.isnan(value) else value for value in single)


def _operating_point(choice: ImportOptions, thresholds: Sequence[float | None]) -> profile.OperatingPointFile:
    if _plain(choice.judge) != _plain(JUDGED):
        raise DataError(f"--judge {choice.judge}: the verdict of a result is about {JUDGED}; other findings are scored")
    if thresholds[torchxrayvision.LABELS.index(JUDGED)] is None:
        raise DataError(f"--judge {JUDGED}: these weights were not trained for it")
    if not 0.0 <= choice.rule_out_below <= choice.report_at <= 1.0:
        raise DataError("--rule-out-below and --report-at must be scores from 0 to 1, the first not above the second")
    if not 0.0 < choice.max_spread <= 1.0:
        raise DataError("--max-spread must be above 0 and at most 1")
    return profile.OperatingPointFile(
        name="op-norm" if choice.report_at == choice.rule_out_below == 0.5 else "op-norm, thresholds chosen at import",
        label=JUDGED,
        report_at=choice.report_at,
        rule_out_below=choice.rule_out_below,
        max_spread=choice.max_spread,
        max_distance=None,
    )


def _plain(label: str) -> str:
    return label.casefold().replace("_", " ")


def _described(name: str) -> profile.ProfileFile:
    return profile.ProfileFile(
        format=profile.FORMAT,
        name=f"torchxrayvision-{name}",
        version="1",
        labels=list(torchxrayvision.LABELS),
        network=profile.NetworkSpec(architecture=torchxrayvision.ARCHITECTURE),
        input=profile.InputSpec(
            size_px=torchxrayvision.SIZE_PX, border=0.0, normalisation=profile.Normalisation.XRV
        ),
        population=profile.Population(
            age_years=ADULTS_YEARS, description="adults; hospitals of the public data sets that the weights name"
        ),
        sha256={},
        licence="Apache-2.0",
        citation=CITATION,
    )  # fmt: skip


def _calibrated(
    name: str, thresholds: Sequence[float | None], point: profile.OperatingPointFile
) -> profile.CalibrationFile:
    return profile.CalibrationFile(
        weights_sha256="",
        method="op-norm (scores, not probabilities)",
        fitted_on=f"what its authors chose: TorchXRayVision {name}",
        slope=1.0,
        intercept=0.0,
        operating_point=point,
        op_norm=list(thresholds),
    )


def card(described: profile.ProfileFile, calibrated: profile.CalibrationFile) -> str:
    """Write the model card: what is known of these weights, and that nothing was measured here."""
    point, thresholds = calibrated.operating_point, calibrated.op_norm or []
    trained = [f"{label} ({at:.4g})" for label, at in zip(described.labels, thresholds, strict=True) if at is not None]
    return f"""# {described.name}

Research use only. Not a medical device. Imported by `cxr-node import torchxrayvision`; the weights are of others.

- **Findings, and the sigmoid that their authors chose as operating point of each:** {", ".join(trained)}.
- **Verdict:** about {point.label} alone: reported from a score of {point.report_at:g}, ruled out below \
{point.rule_out_below:g}. The other findings are scored, none is asserted.
- **Scores are not probabilities.** Each sigmoid is stretched so that its operating point lies at 0.5 (op-norm). How \
often a score is right was not measured here, so results show scores and never percent.
- **Population:** {described.population.description}; ages {described.population.age_years[0]:g} to \
{described.population.age_years[1]:g} years.
- **Input:** the central square at {described.input.size_px} px, grey values from -1024 to 1024.
- **Not known:** the training images. An image unlike them is not noticed, and no distance is given. Views that \
disagree {"are not noticed either" if point.max_spread >= 1 else f"by more than {point.max_spread:g} make it abstain"}.
- **Licence:** {described.licence}. **Citation:** {described.citation}.

Nothing was measured here on these weights: no sensitivity, no specificity, no calibration.
"""
