"""Does a class whose films come from elsewhere tell the disease, or the place? Shown with frozen features.

    python -m tools.source_probe DATA [--films N]

DATA holds the folders tb, adults, kermany224, others and init. A linear probe on ImageNet features of films as they
are, and of films whose middle is blanked, so that no lung is seen: what is told from the frame alone is the hospital.
Nothing is written.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.model import imagenet, networks, preprocess
from cxr_node.model.networks import Network
from cxr_node.model.profile import Geometry, InputSpec, NetworkSpec
from cxr_node.training.data import images
from cxr_node.training.data.device import bar_of
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap

SPEC = InputSpec(size_px=224, border=0.0, geometry=Geometry.LETTERBOX)
FRAME = 0.15
"""Share of each side that is left where the middle is blanked."""
RIDGE = 300.0
"""Penalty on the weights of standardised features; features outnumber films."""
FOLDS = 5
BATCH = 16
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def listed(folder: Path, column: str, words: Sequence[str], count: int) -> list[Item]:
    """List `count` films of a manifest whose column holds one of the words, drawn by the hash of their names."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[column] in words]
    rows.sort(key=lambda row: sha256(row["file"].encode()).digest())
    return [
        Item(
            path=folder / row["file"],
            positive=False,
            kind="",
            group=row.get("patient") or row.get("near_group") or row["file"],
            digest="",
        )
        for row in rows[:count]
    ]


def framed(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blank the middle, where the lungs are."""
    rows, cols = (round(FRAME * side) for side in picture.shape)
    changed = picture.copy()
    changed[rows:-rows, cols:-cols] = float(picture.mean())
    return changed


@torch.inference_mode()
def features(network: Network, items: Sequence[Item], *, frame: bool) -> Floats:
    """Average the last feature map: (films, channels)."""
    found = []
    for start in range(0, len(items), BATCH):
        pictures = [images.load(item) for item in items[start : start + BATCH]]
        shown = [preprocess.prepare(framed(one) if frame else one, SPEC) for one in pictures]
        found.append(network.pooled(network.features(torch.from_numpy(np.stack(shown))[:, None])))
    return torch.cat(found).double().numpy()


class Probe:
    """A ridge regression of which side a film is on, over standardised features."""

    def __init__(self, one: Floats, other: Floats) -> None:
        rows = np.concatenate([one, other])
        self._mean, self._spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        wanted = np.concatenate([np.full(len(one), 0.5 / len(one)), np.full(len(other), -0.5 / len(other))])
        share = np.abs(wanted)  # both sides alike, however many films they have
        scaled = self._scaled(rows)
        self._middle = share @ scaled
        centred = (scaled - self._middle) * np.sqrt(share)[:, None]
        penalty = np.eye(rows.shape[1]) * RIDGE / len(rows)
        self._weights = np.linalg.solve(centred.T @ centred + penalty, (scaled - self._middle).T @ wanted)

    def _scaled(self, rows: Floats) -> Floats:
        return np.asarray((rows - self._mean) / self._spread)

    def __call__(self, rows: Floats) -> Floats:
        """Above 0: the first side."""
        return np.asarray((self._scaled(rows) - self._middle) @ self._weights)


def told_apart(one: tuple[Floats, Sequence[Item]], other: tuple[Floats, Sequence[Item]]) -> str:
    """AUC of films that a probe was not fitted on, by patient, with its interval."""
    groups = np.array([f"{side} {item.group}" for side, (_, items) in enumerate((one, other)) for item in items])
    positive = np.concatenate([np.ones(len(one[0]), dtype=np.bool_), np.zeros(len(other[0]), dtype=np.bool_)])
    rows, fold = np.concatenate([one[0], other[0]]), np.array([_fold(group) for group in groups])
    score = np.empty(len(rows))
    for held_out in range(FOLDS):
        own, seen = fold == held_out, fold != held_out
        score[own] = Probe(rows[seen & positive], rows[seen & ~positive])(rows[own])
    return _said(bootstrap.bracket(bootstrap.aucs(positive, score, bootstrap.weights(groups))))


def _fold(group: str) -> int:
    return int(sha256(group.encode()).hexdigest(), 16) % FOLDS


def _said(one: bootstrap.Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def main() -> None:
    """Print what is told apart by whole films, and by their frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--films", type=int, default=400, help="of each kind at most")
    asked = parser.parse_args()
    network = networks.build(NetworkSpec(architecture="efficientnet-lite0"), 1).eval()
    imagenet.begin_from(network, asked.data / "init" / "efficientnet_lite0_imagenet_trunk_fp16.pt")
    kinds = {
        "tuberculosis": listed(asked.data / "tb", "label", ["Tuberculosis"], asked.films),
        "adult, normal": listed(asked.data / "adults", "label", ["Normal"], asked.films),
        "adult, opacity": listed(asked.data / "adults", "label", ["Lung Opacity"], asked.films),
        "child, normal": listed(asked.data / "kermany224", "label", ["NORMAL"], asked.films),
        "pneumonia elsewhere": listed(asked.data / "others", "group", ["covid_chestxray"], asked.films),
    }
    found = {}
    with bar_of(shown=True) as bar:
        task = bar.add_task("look", total=2 * len(kinds))
        for name, items in kinds.items():
            for frame in (False, True):
                found[name, frame] = features(network, items, frame=frame)
                bar.advance(task)
    for one, other in (
        ("tuberculosis", "adult, normal"),
        ("tuberculosis", "adult, opacity"),
        ("child, normal", "adult, normal"),
        ("adult, opacity", "adult, normal"),
    ):
        sides = [told_apart(*((found[name, frame], kinds[name]) for name in (one, other))) for frame in (False, True)]
        print(f"{one} against {other}: AUC {sides[0]}, frame alone {sides[1]}")
    probe = Probe(found["tuberculosis", False], found["adult, normal", False])
    for name in ("adult, opacity", "child, normal", "pneumonia elsewhere"):
        called = probe(found[name, False]) > 0.0
        groups = np.array([item.group for item in kinds[name]])
        print(f"{name}, {len(called)} films: called tuberculosis {_said(bootstrap.share(called, groups))}")


if __name__ == "__main__":
    main()
