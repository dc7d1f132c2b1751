"""Several profiles on equal terms: one page, written from their metrics.json and from this machine's clock.

Needs no data and no weights: how fast a network is does not depend on what it has learned.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import mobilenet_v2

from cxr_node.errors import DataError
from cxr_node.model import networks, profile
from cxr_node.model.profile import ProfileFile
from cxr_node.training.data import profile_folder
from cxr_node.training.measure.model_card import figure

FIGURES = {
    "auc": "AUC",
    "balanced_accuracy_at_0.5": "Balanced accuracy at 0.5",
    "answered": "Answered",
    "accuracy_of_answered": "Accuracy of the answers",
    "calibration_error": "ECE",
    "brier": "Brier score",
}
"""Figure of `evaluate` -> column of the table."""
WARM_UP, RUNS = 5, 25
"""Forward passes that do not count, and those that do."""

OWN_TERMS = ", corrupted"
"""End of the names of evaluations that each recipe's own augmentation has changed: no equal terms."""
INTRODUCTION = """# Models on equal terms

Written by `cxr-node compare`; not edited by hand. Research use only.

Every network was trained by its recipe in `config/train` on the same patients, calibrated on the same calibration
part and measured on the same validation part: children whom no weight and no threshold has seen. 95 % intervals,
bootstrapped over patients. That part comes from the hospital of the training images and flatters all of them alike.
"Exchanged" shows the same children in the surroundings and style of a child of the other class, so that letters,
wards and devices no longer help. It is a harder test than the plain validation part, but no forecast: a blind
measurement of the shipped profile found less. A recipe that exchanges surroundings in training (lungs.yaml) is used to
them, which is part of its lead; the adults, whose labels no recipe has seen, are the check on that."""

Section = Mapping[str, Any]


def page(profile_folders: Sequence[Path]) -> str:
    """Write the comparison as Markdown.

    `profile_folders` : as `cxr-node train` wrote them; profile.yaml and metrics.json are read
    Raises DataError: two profiles were trained on different images; ModelError: a folder holds no profile that was
    trained here.
    """
    described = [profile.described_in(one) for one in profile_folders]
    trained = {profile_folder.section(one, "training").get("fingerprint") for one in profile_folders}
    if len(trained) > 1:
        raise DataError("these profiles were trained on different images; only equal terms can be compared")
    names: dict[str, None] = {}
    for one in profile_folders:
        names |= dict.fromkeys(
            name for name in profile_folder.section(one, "evaluations") if not name.endswith(OWN_TERMS)
        )
    sections = [INTRODUCTION, _size_and_speed(described)]
    sections += [_measured(name, profile_folders) for name in names]
    sections += _blind(profile_folders)
    sections.append(_claims(profile_folders))
    return "\n\n".join(sections) + "\n"


def _size_and_speed(compared: Sequence[ProfileFile]) -> str:
    built = [networks.build(described.network, len(described.labels)) for described in compared]
    timed = [(mobilenet_v2(weights=None), torch.zeros(1, 3, 224, 224))]
    timed += [
        (network, torch.zeros(1, described.input.pictures, described.input.side_px, described.input.side_px))
        for network, described in zip(built, compared, strict=True)
    ]
    reference_ms, *took_ms = _forward_ms(timed)
    rows = []
    for described, network, took in zip(compared, built, took_ms, strict=True):
        values = [value for value in network.state_dict().values() if value.is_floating_point()]
        size_mb = sum(value.numel() * (2 if value.dim() > 1 else 4) for value in values) / 1e6
        parameters = sum(value.numel() for value in network.parameters()) / 1e6
        rows.append(
            f"| {described.name} | {described.network.architecture} | {_sizes(described)} | {parameters:.1f} | "
            f"{size_mb:.1f} | {took:.0f} | {took / reference_ms:.2f} |"
        )
    return (
        "## Size and speed\n\n"
        f"One image in one view, float32, {torch.get_num_threads()} threads, torch {torch.__version__.split('+')[0]}; "
        f"median of {RUNS} forward passes, the networks in turn. The last column is a ratio to torchvision's "
        f"MobileNetV2 at 224 px ({reference_ms:.0f} ms).\n\n"
        "| profile | network | px | parameters, millions | weights, MB | forward, ms | ratio |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _sizes(described: ProfileFile) -> str:
    return " and ".join(str(each.size_px) for each in described.input.of_pictures)


@torch.inference_mode()
def _forward_ms(timed: Sequence[tuple[nn.Module, torch.Tensor]]) -> list[float]:
    """Time the networks in turn, so that what else the machine does falls on all of them alike."""
    ready = [
        (
            network.eval().to(memory_format=torch.channels_last),
            image.contiguous(memory_format=torch.channels_last),
        )
        for network, image in timed
    ]
    took: list[list[float]] = [[] for _ in ready]
    for _ in range(WARM_UP + RUNS):
        for times, (network, image) in zip(took, ready, strict=True):
            begun = time.perf_counter()
            network(image)
            times.append(1e3 * (time.perf_counter() - begun))
    return [statistics.median(times[WARM_UP:]) for times in took]


def _measured(name: str, profile_folders: Sequence[Path]) -> str:
    rows = []
    for one in profile_folders:
        rates = profile_folder.section(one, "evaluations").get(name, {}).get("rates", {})
        if rates:
            rows.append(f"| {_name(one)} | " + " | ".join(_figure(rates.get(key)) for key in FIGURES) + " |")
    head = " | ".join(["profile", *FIGURES.values()])
    return f"## Measured: {name}\n\n| {head} |\n|{'---|' * (len(FIGURES) + 1)}\n" + "\n".join(rows)


def _blind(profile_folders: Sequence[Path]) -> list[str]:
    rows = [
        f"| {_name(one)} | {name}, {found['images']} images | "
        + " | ".join(_figure(found["rates"].get(key)) for key in FIGURES)
        + " |"
        for one in profile_folders
        for name, found in profile_folder.section(one, "blind").items()
    ]
    head = " | ".join(["profile", "images", *FIGURES.values()])
    said = "By a third party; the model cards describe the images and compare with what was predicted."
    table = f"| {head} |\n|{'---|' * (len(FIGURES) + 2)}\n" + "\n".join(rows)
    return [f"## Measured blind\n\n{said}\n\n{table}"] if rows else []


def _claims(profile_folders: Sequence[Path]) -> str:
    rows = []
    for one in profile_folders:
        claimed = profile_folder.recipe_of(one).profile.claimed
        rows += [f"| {_name(one)} | {claimed} |"] if claimed else []
    said = "## What their authors claimed\n\n"
    said += "Each on its own images and its own split; not comparable with the tables above, nor with each other.\n\n"
    said += "| profile | claim |\n|---|---|\n" + "\n".join(rows)
    return said


def _name(profile_folder: Path) -> str:
    return profile.described_in(profile_folder).name


def _figure(rate: Section | None) -> str:
    return "" if rate is None else figure(rate)
