"""Where the regions of heat maps lie on real radiographs, by the cut, before and after they are cut at the lungs.

    python -m tools.heatmap_regions --children FOLDER --adults FOLDER

Radiographs that the shipped profile calls PNEUMONIA. A folder of adults has a `manifest.csv` with `file` and
`boxes_1024`, the radiologists' boxes as [[x, y, width, height], ...]; images of it without boxes are left out. Prints a
table; `model/regions.py` cites it. No image is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cxr_node import resources
from cxr_node.dicom.results.segmentation import mask
from cxr_node.domain import Heatmap, Radiograph, Region, View
from cxr_node.model import lungs, profile
from cxr_node.model.predictor import ProfilePredictor, load_predictor
from cxr_node.model.regions import MEDIASTINUM, regions

CUTS = (0.5, 0.6, 0.7, 0.8)
GRID = 256
"""Side of the grid on which regions, lungs and boxes are compared."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One radiograph called PNEUMONIA: its map, its lungs, and the boxes (none of children)."""

    heatmap: Heatmap
    thorax: lungs.Thorax
    lung: Bools
    boxes: tuple[Bools, ...]


def films(folder: Path, predictor: ProfilePredictor) -> Iterator[Film]:
    """Judge every image of a folder."""
    for path, boxes in track(_listed(folder), description=folder.name):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
        seen = predictor.examine(Radiograph(pixels=pixels, pixel_aspect=1.0, view=View.AP, pixel_digest=""))
        point = predictor.profile.operating_point
        if seen.prediction.probability[point.label] >= point.report_at and seen.heatmap.cells.any():
            thorax = lungs.fit(pixels)
            lung, _ = lungs.masks(thorax.place, (GRID, GRID))
            yield Film(heatmap=seen.heatmap, thorax=thorax, lung=lung, boxes=tuple(map(_box, boxes)))


def _listed(folder: Path) -> list[tuple[Path, list[list[float]]]]:
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    if "boxes_1024" not in rows[0]:
        return [(folder / row["file"], []) for row in rows]
    boxed = ((row["file"], json.loads(row["boxes_1024"] or "[]")) for row in rows)
    return [(folder / name, boxes) for name, boxes in boxed if boxes]


def _box(corners: Sequence[float]) -> Bools:
    left, top, width, height = (side * GRID / 1024 for side in corners)
    inside = np.zeros((GRID, GRID), np.bool_)
    inside[int(top) : int(top + height) + 1, int(left) : int(left + width) + 1] = True
    return inside


def row(of: Sequence[Film], share: float, *, cut: bool) -> list[str]:
    """Figures of all films: regions at this share of the peak, cut at the lungs or not."""
    found = [
        (film, regions(film.heatmap.cells, film.heatmap.border, (GRID, GRID), film.thorax if cut else None, share))
        for film in of
    ]
    shown = [(film, some, _covered(some)) for film, some in found if some]
    hits = [bool((box & covered).any()) for film, _, covered in shown for box in film.boxes]
    boxed = [(film, some, covered, np.any(film.boxes, axis=0)) for film, some, covered in shown if film.boxes]
    figures = [
        np.mean([any(_bridges(region, film.thorax) for region in some) for film, some, _ in shown]),
        np.mean([_inside(film.lung, region) for film, some, _ in shown for region in some]),
        np.mean([(covered & film.lung).sum() / max(covered.sum(), 1) for film, _, covered in shown]),
        np.mean(hits) if hits else None,
        np.mean([(covered & box).sum() / max(covered.sum(), 1) for _, _, covered, box in boxed]) if boxed else None,
    ]
    return [
        f"{share:.0%}{', cut' if cut else ''}",
        str(len(shown)),
        f"{np.mean([len(some) for _, some, _ in shown]):.2f}",
        f"{np.median([covered.mean() for _, _, covered in shown]):.1%}",
        *("-" if figure is None else f"{figure:.0%}" for figure in figures),
    ]


def _covered(some: Sequence[Region]) -> Bools:
    return np.asarray(np.any([mask(region.outline, (GRID, GRID)) for region in some], axis=0))


def _inside(place: Bools, region: Region) -> bool:
    column, line = (min(int(at), GRID - 1) for at in region.peak)
    return bool(place[line, column])


def _bridges(region: Region, thorax: lungs.Thorax) -> bool:
    """Whether a region reaches beyond the mediastinum on both sides, inside the chest."""
    centres = ((np.arange(GRID) + 0.5) / GRID).astype(np.float32)
    u, _, depth = thorax.own(centres, centres)
    inside = mask(region.outline, (GRID, GRID)) & (depth >= -lungs.MARGIN)
    return bool((inside & (u < -MEDIASTINUM)).any() and (inside & (u > MEDIASTINUM)).any())


def main() -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--children", type=Path, action="append", default=[])
    options.add_argument("--adults", type=Path, action="append", default=[])
    told = options.parse_args()
    predictor = load_predictor(profile.load(resources.profile_folder("pneumonia-pediatric")))
    heads = (
        "cut",
        "films",
        "regions",
        "area",
        "bridge",
        "peaks in lungs",
        "area in lungs",
        "boxes met",
        "area in boxes",
    )
    for name, folders in (("children", told.children), ("adults", told.adults)):
        of = [film for folder in folders for film in films(folder, predictor)]
        if not of:
            continue
        table = Table(*heads, title=f"{name}: {len(of)} called PNEUMONIA")
        for share in CUTS:
            table.add_row(*row(of, share, cut=False))
            table.add_row(*row(of, share, cut=True))
        Console().print(table)


if __name__ == "__main__":
    main()
