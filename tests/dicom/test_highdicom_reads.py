"""An independent reader: highdicom parses the measurements and finds group, number, and the region of a PNEUMONIA."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import highdicom.sr as sr
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from cxr_node import pipeline
from cxr_node.config import loader
from cxr_node.domain import Origin, Reported, ResultKind, Verdict
from tests import builders

ORIGIN = Origin(calling_ae_title="PACS", peer_host="::1", received_at=datetime(2024, 6, 1, 12, tzinfo=UTC))
CONFIG = loader.parse({"spool": {"path": "."}})


@pytest.mark.parametrize(
    ("probability", "verdict"), [(0.97, Verdict.POSITIVE), (0.03, Verdict.NEGATIVE), (0.5, Verdict.INDETERMINATE)]
)
def test_highdicom_reads_the_measurements(probability: float, verdict: Verdict) -> None:
    source = builders.radiograph()
    outcome = pipeline.process(
        builders.part10(source), ORIGIN, builders.FixedPredictor(probability=probability), CONFIG
    )
    assert isinstance(outcome, Reported)
    assert outcome.finding.decision.verdict is verdict
    (artifact,) = (one for one in outcome.artifacts if one.kind is ResultKind.MEASUREMENTS)
    document = sr.Comprehensive3DSR.from_dataset(dcmread(io.BytesIO(artifact.content)))
    regions, whole = (
        document.content.get_planar_roi_measurement_groups(), document.content.get_image_measurement_groups(),
    )  # fmt: skip
    (group,) = (*regions, *whole)
    assert group.finding_type == (sr.CodedConcept("233604007", "SCT", "Pneumonia") if probability > 0.9 else None)
    (number,) = group.get_measurements(codes.DCM.CertaintyOfFinding)
    assert number.value == pytest.approx(100 * probability)
    assert len(regions) == (verdict is Verdict.POSITIVE)  # of the others there is nothing to draw
    for region in regions:
        assert region.roi.graphic_type == sr.GraphicTypeValues.POLYLINE
        assert region.roi.value.shape[1] == 2
