"""Twenty studies of one to four images, for the validators of `result_sets`, and made by the pipeline as those.

All frontal, or some of them laterals, hands and blank films, which the report lists or leaves out; images of another
size and class; with priors, with earlier reports that a late image replaces, and under every character set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cxr_node import pipeline, study_pipeline
from cxr_node.config import loader
from cxr_node.domain import Examination, Place, Radiograph, Region, Zone
from cxr_node.outcome import Artifact, NotAnalysed, Rejected, Reported, StudyCase, StudyImage, StudyReport
from cxr_node.result_kinds import DICOM_KINDS
from tests import builders
from tests.dicom.contexts import CASES
from tests.dicom.studies import origin, refs
from tests.pacs.result_sets import SOURCES, ResultFile, named

DESTINATION = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": [kind.value for kind in DICOM_KINDS]}
SETTINGS = loader.parse({"spool": {"path": "."}, "destinations": [DESTINATION], "results": {"max_heatmap_px": 1024}})
ANSWERS = {**CASES, "two regions": CASES["pneumonia"], "no region": CASES["pneumonia"]}
OTHERS: dict[str, dict[str, Any]] = {
    "lateral": {"ViewPosition": "LL"},
    "hand": {"BodyPartExamined": "HAND", "AnatomicRegionSequence": None},
    "blank": {"stored": np.full((320, 288), 1000, np.uint16)},
}
SIZES = ((320, 288), (288, 320), (512, 400), (256, 256))
"""Rows and columns of the first image of a study, of its second, and so on."""
_ROOT = "1.2.826.0.1.3680043.8.498.161"
_PRIOR = 9


@dataclass(frozen=True, slots=True)
class _Told(builders.FixedPredictor):
    """Says what it is told, also where the map has two regions or none."""

    regions: int = 1

    def examine(self, radiograph: Radiograph) -> Examination:
        examination = builders.FixedPredictor.examine(self, radiograph)
        (first,) = examination.heatmap.regions
        regions = (first, _mirrored(first, radiograph.pixels.shape[1]))[: self.regions]
        return replace(examination, heatmap=replace(examination.heatmap, regions=regions))


def _mirrored(region: Region, columns: int) -> Region:
    return replace(
        region,
        outline=tuple((columns - x, 0.6 * y) for x, y in region.outline),
        peak=(columns - region.peak[0], 0.6 * region.peak[1]),
        weight=0.8,
        place=Place.PICTURE_RIGHT,
        zones=(Zone.MIDDLE,),
    )


@dataclass(frozen=True)
class StudySet:
    """One study: its images by what is said of them, and what its report is made of besides."""

    number: int
    images: tuple[str, ...]
    """Keys of `ANSWERS` and of `OTHERS`."""
    character_set: str = "Latin-1"
    source_class: str = "DX"
    """Of every second image; the others are DX."""
    prior: str | None = None
    late: int = 0
    """How many of the last images came after the study was first reported."""

    def __str__(self) -> str:
        return f"{self.number:02d}-{'-'.join(self.images).replace(' ', '-')}"

    @cached_property
    def sources(self) -> tuple[bytes, ...]:
        """Part 10 file of each image."""
        return tuple(self._source(number, what) for number, what in enumerate(self.images, 1))

    @cached_property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The report in every SOP Class, and what each image has of its own."""
        seen = [self._image(number, what) for number, what in enumerate(self.images, 1)]
        prior = () if self.prior is None else (self._image(_PRIOR, self.prior)[0],)
        assert all(isinstance(each, StudyImage) for each in prior)
        reports: list[StudyReport] = []
        for count in range(len(seen) - self.late, len(seen) + 1):
            report = study_pipeline.report_study(self._case(seen[:count], prior, reports), SETTINGS)
            assert report is not None
            reports.append(report)
        pictures = [picture for _, its in seen for picture in its]
        return tuple(choice for each in (*reports[-1].artifacts, *pictures) for choice in each.sop_class_choices)

    def _case(self, seen: list[Any], priors: tuple[Any, ...], earlier: list[StudyReport]) -> StudyCase:
        images = tuple(each for each, _ in seen if isinstance(each, StudyImage))
        others = tuple(each for each, _ in seen if isinstance(each, NotAnalysed))
        files = () if images else tuple((content, origin(9)) for content in self.sources)
        return StudyCase(
            images=images, others=others, priors=priors, unanswered=files,
            earlier_reports=tuple(refs(each) for each in earlier),
        )  # fmt: skip

    def _image(self, number: int, what: str) -> tuple[StudyImage | NotAnalysed, tuple[Artifact, ...]]:
        """What the report takes of one image, and the objects that it has of its own."""
        regions = {"two regions": 2, "no region": 0}.get(what, 1)
        predictor = _Told(**ANSWERS.get(what, {}), regions=regions)  # type: ignore[arg-type]
        content = self._source(number, what)
        outcome = pipeline.process(content, origin(number), predictor, SETTINGS)
        if isinstance(outcome, Rejected):
            assert outcome.listed is not None and what in OTHERS
            return outcome.listed, outcome.artifacts
        assert isinstance(outcome, Reported) and outcome.judgement is not None and what in ANSWERS
        return StudyImage(content=content, origin=origin(number), judgement=outcome.judgement), outcome.pictures

    def _source(self, number: int, what: str) -> bytes:
        earlier = {"StudyInstanceUID": f"{_ROOT}.4.{self.number}", "StudyDate": "20230405"}
        overrides: dict[str, Any] = {
            "stored": builders.chest(*SIZES[number % len(SIZES) - 1]),
            "SOPInstanceUID": f"{_ROOT}.1.{self.number}.{number}",
            "SeriesInstanceUID": f"{_ROOT}.2.{self.number}.{number}",
            "SeriesNumber": number,
        }
        overrides |= SOURCES[self.source_class] if number % 2 == 0 else {}
        overrides |= OTHERS.get(what, {}) | (earlier if number == _PRIOR else {})
        return named(self.number, self.character_set, **overrides)


STUDY_SETS = tuple(
    StudySet(number, images, **more)
    for number, (images, more) in enumerate(
        (
            (("normal", "pneumonia"), {}),
            (("pneumonia", "normal", "lateral"), {"character_set": "UTF-8"}),
            (("between", "normal"), {"late": 1}),
            (("normal", "normal", "lateral"), {"prior": "pneumonia"}),
            (("normal", "lateral"), {"late": 1}),
            (("lateral", "lateral"), {}),
            (("blank",), {}),
            (("pneumonia", "two regions", "normal", "lateral"), {"character_set": "Japanese"}),
            (("unlike", "views"), {"source_class": "CR"}),
            (("views", "pneumonia", "lateral", "blank"), {"late": 2}),
            (("normal", "between", "pneumonia", "unlike"), {"prior": "normal", "character_set": "Greek"}),
            (("two regions",), {"prior": "between"}),
            (("normal",), {}),
            (("between", "blank"), {"character_set": "Cyrillic"}),
            (("lateral", "two regions"), {"late": 1, "source_class": "CR"}),
            (("normal", "normal", "normal"), {"source_class": "CR", "character_set": "Arabic"}),
            (("unlike", "normal", "hand"), {"prior": "unlike"}),
            (("no region", "between"), {"late": 1, "prior": "normal"}),
            (("no region", "two regions", "unlike"), {"source_class": "CR"}),
            (("pneumonia", "pneumonia", "pneumonia", "pneumonia"), {"character_set": "undeclared", "late": 3}),
        ),
        1,
    )
)


def write(folder: Path, sets: tuple[StudySet, ...] = STUDY_SETS) -> list[ResultFile]:
    """Write sources and results as files."""
    return [one for of in sets for one in _written(folder, of)]


def _written(folder: Path, of: StudySet) -> Iterator[ResultFile]:
    sources = []
    for number, content in enumerate(of.sources, 1):
        sources.append(folder / f"{of}-source-{number}.dcm")
        sources[-1].write_bytes(content)
    for number, artifact in enumerate(of.artifacts):
        file = folder / f"{of}-{number:02d}-{artifact.kind}-{artifact.sop_class_uid.rsplit('.', 1)[-1]}.dcm"
        file.write_bytes(artifact.content)
        yield ResultFile(kind=artifact.kind, sop_class_uid=artifact.sop_class_uid, sources=tuple(sources), file=file)
