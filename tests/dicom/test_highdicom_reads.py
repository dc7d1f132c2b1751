"""A second reader: highdicom parses what it has a class for, be it built by highdicom or by us."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import highdicom
import highdicom.sr as sr
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from cxr_node import pipeline
from cxr_node.config import loader
from cxr_node.dicom.results import segmentation
from cxr_node.dicom.words import wording
from cxr_node.domain import Origin, Verdict
from cxr_node.outcome import Reported
from cxr_node.result_kinds import DICOM_KINDS
from tests import builders

ORIGIN = Origin(calling_ae_title="PACS", peer_host="::1", received_at=datetime(2024, 6, 1, 12, tzinfo=UTC))
EVERY_KIND = [kind.value for kind in DICOM_KINDS]
CONFIG = loader.parse(
    {
        "spool": {"path": "."},
        "destinations": [{"name": "a", "address": "A@127.0.0.1:104", "send": EVERY_KIND, "report_per": "image"}],
    }
)
SOURCE = builders.radiograph()
SR_CLASSES = {
    Comprehensive3DSRStorage: sr.Comprehensive3DSR,
    ComprehensiveSRStorage: sr.ComprehensiveSR,
    EnhancedSRStorage: sr.EnhancedSR,
}
Made = tuple[Reported, dict[str, Dataset]]
"""What the pipeline says, and its objects by SOP Class UID."""


def results(probability: float) -> Made:
    predictor = builders.FixedPredictor(probability=probability)
    outcome = pipeline.process(builders.part10(SOURCE), ORIGIN, predictor, CONFIG)
    assert isinstance(outcome, Reported)
    contents = [choice.content for artifact in outcome.artifacts for choice in artifact.sop_class_choices]
    return outcome, {dataset.SOPClassUID: dataset for dataset in (dcmread(io.BytesIO(each)) for each in contents)}


@pytest.fixture(scope="module")
def made() -> Made:
    return results(0.97)


@pytest.mark.parametrize(
    ("probability", "verdict"), [(0.97, Verdict.POSITIVE), (0.03, Verdict.NEGATIVE), (0.5, Verdict.INDETERMINATE)]
)
def test_highdicom_reads_the_measurements(probability: float, verdict: Verdict) -> None:
    outcome, objects = results(probability)
    assert outcome.finding.decision.verdict is verdict
    for sop_class_uid, its_class in SR_CLASSES.items():
        content = its_class.from_dataset(objects[sop_class_uid]).content
        regions, whole = content.get_planar_roi_measurement_groups(), content.get_image_measurement_groups()
        (group,) = (*regions, *whole)
        assert group.finding_type == (sr.CodedConcept("233604007", "SCT", "Pneumonia") if probability > 0.9 else None)
        (number,) = group.get_measurements(codes.DCM.CertaintyOfFinding)
        assert number.value == pytest.approx(100 * probability)
        assert len(regions) == (verdict is Verdict.POSITIVE)  # of the others there is nothing to draw
        for region in regions:
            assert region.roi.graphic_type == sr.GraphicTypeValues.POLYLINE
            assert region.roi.value.shape[1] == 2


def test_highdicom_reads_the_report(made: Made) -> None:
    """It has no class for a Basic Text SR: as a tree of content items."""
    report = made[1][BasicTextSRStorage]
    root = sr.ContainerContentItem.from_dataset(report)
    assert root.name == sr.CodedConcept("18748-4", "LN", "Diagnostic Imaging Report")
    texts = sr.utils.find_content_items(report, value_type=sr.ValueTypeValues.TEXT, recursive=True)
    assert wording.summary(made[0].finding) in [item.TextValue for item in texts]


def test_highdicom_reads_the_masks(made: Made) -> None:
    outcome, objects = made
    read = highdicom.seg.Segmentation.from_dataset(objects[SegmentationStorage])
    regions = outcome.finding.heatmap.regions
    assert read.segment_numbers == list(range(1, len(regions) + 1))
    pixels = read.get_pixels_by_source_instance([SOURCE.SOPInstanceUID], segment_numbers=read.segment_numbers)
    for place, region in enumerate(regions):
        assert (pixels[0, ..., place] == segmentation.mask(region.outline, (SOURCE.Rows, SOURCE.Columns))).all()


def test_the_presentation_state_draws_what_highdicom_finds_in_the_measurements(made: Made) -> None:
    """It writes presentation states and reads none."""
    document = sr.Comprehensive3DSR.from_dataset(made[1][Comprehensive3DSRStorage])
    (annotation,) = made[1][GrayscaleSoftcopyPresentationStateStorage].GraphicAnnotationSequence
    groups = document.content.get_planar_roi_measurement_groups()
    for graphic, group in zip(annotation.GraphicObjectSequence, groups, strict=True):
        assert np.reshape(graphic.GraphicData, (-1, 2)) == pytest.approx(group.roi.value, rel=1e-6)


def test_highdicom_resolves_what_the_key_object_marks(made: Made) -> None:
    _, objects = made
    read = highdicom.ko.KeyObjectSelectionDocument.from_dataset(objects[KeyObjectSelectionDocumentStorage])
    for marked in (SOURCE, objects[SecondaryCaptureImageStorage]):
        expected = SOURCE.StudyInstanceUID, marked.SeriesInstanceUID, marked.SOPInstanceUID
        assert read.resolve_reference(marked.SOPInstanceUID) == expected


def test_highdicom_reads_the_picture_and_the_frames_in_color(made: Made) -> None:
    for sop_class_uid in (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage):
        image = highdicom.Image.from_dataset(made[1][sop_class_uid])
        frame = image.get_frame(1)
        assert frame.shape == (image.Rows, image.Columns, 3)
        assert np.ptp(frame) > 0.5 * np.iinfo(np.uint8).max
