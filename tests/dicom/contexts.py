"""Finished cases for the result objects: one radiograph, every verdict and every doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from cxr_node.config.schema import Results
from cxr_node.dicom.read import header
from cxr_node.dicom.results.context import Context
from cxr_node.domain import Finding, ModelIdentity, Origin, Place, Radiograph, Region, View, Zone
from cxr_node.model.decision import decide
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders

RECEIVED = datetime(2025, 1, 2, 22, 4, 5, 678901, tzinfo=UTC)
CASES: dict[str, dict[str, float]] = {
    "pneumonia": {"probability": 0.934},
    "normal": {"probability": 0.031},
    "between": {"probability": 0.52},
    "views": {"probability": 0.03, "spread": 0.41},
    "unlike": {"probability": 0.03, "distance": 1.43},
}
UNCERTAIN = ("between", "views", "unlike")
APPLIES = {
    ResultKind.PRESENTATION_STATE: ("pneumonia",),
    ResultKind.SEGMENTATION: ("pneumonia",),
    ResultKind.KEY_OBJECT: ("pneumonia",),
    ResultKind.FRAMES: ("pneumonia", "between"),
    ResultKind.NOT_ANALYSED: (),
}
"""Cases in which a kind is made; those not listed are made in all."""
MADE = [(kind, case) for kind in DICOM_KINDS for case in APPLIES.get(kind, CASES)]


def context(case: str = "pneumonia", dataset: Dataset | None = None, **settings: Any) -> Context:
    """Judge a synthetic radiograph; `settings` are those of `results:` in the configuration."""
    return _plain(case, **settings) if dataset is None else of_bytes(builders.part10(dataset), case, **settings)


@cache
def _plain(case: str, **settings: Any) -> Context:
    return of_bytes(builders.part10(builders.radiograph()), case, **settings)


def in_both_lungs(of: Context) -> Context:
    """Add a smaller region in the other lung, and one that lies in none."""
    first = of.finding.heatmap.regions[0]
    rows, columns = of.radiograph.pixels.shape
    second = replace(
        first,
        outline=tuple((columns - x, y - 0.3 * rows) for x, y in first.outline),
        peak=(columns - first.peak[0], first.peak[1] - 0.3 * rows),
        weight=0.8,
        place=Place.PICTURE_RIGHT,
        zones=(Zone.UPPER, Zone.MIDDLE),
    )
    corner = ((2.0, 2.0), (20.0, 2.0), (20.0, 14.0), (2.0, 14.0), (2.0, 2.0))
    third = Region(outline=corner, peak=(10.0, 8.0), weight=0.75, place=Place.OUTSIDE)
    return with_regions(of, first, second, third)


def with_regions(of: Context, *regions: Region) -> Context:
    """Replace the regions of the map."""
    return replace(of, finding=replace(of.finding, heatmap=replace(of.finding.heatmap, regions=regions)))


def of_bytes(content: bytes, case: str = "pneumonia", **settings: Any) -> Context:
    source = header.read(content)
    assert not isinstance(source, Rejected), source
    radiograph = _chest()
    return Context(
        source=source,
        radiograph=radiograph,
        finding=finding(case, radiograph),
        origin=Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=RECEIVED),
        settings=Results(**{"normal_heatmap": "banner"} | settings),
    )


@cache
def _chest() -> Radiograph:
    made = picture_of(builders.chest() / np.float32(4095))
    made.pixels.setflags(write=False)
    return made


def finding(case: str, radiograph: Radiograph, **point: float) -> Finding:
    predictor = builders.FixedPredictor(**CASES[case])
    profile = predictor.profile
    operating_point = replace(profile.operating_point, **point)
    examination = predictor.examine(radiograph)
    return Finding(
        prediction=examination.prediction,
        decision=decide(examination.prediction, operating_point),
        heatmap=examination.heatmap,
        identity=ModelIdentity(
            profile="pneumonia-pediatric",
            version="1.0.0",
            weights_sha256=profile.weights_sha256,
            config_sha256="ef" * 32,
            operating_point=operating_point,
            calibration=profile.calibration,
        ),
    )


def picture_of(pixels: NDArray[Any], pixel_aspect: float = 1.0, remarks: tuple[str, ...] = ()) -> Radiograph:
    return Radiograph(
        pixels=np.ascontiguousarray(pixels, dtype=np.float32),
        pixel_aspect=pixel_aspect,
        view=View.PA,
        pixel_digest="cd" * 32,
        remarks=remarks,
    )
