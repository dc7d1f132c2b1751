"""Times of results: of one moment by one offset, which is true of the study's own times, or is not stated."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import Dataset, dcmread

from cxr_node import pipeline
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.verify import check
from cxr_node.result_kinds import DICOM_KINDS
from tests import builders
from tests.dicom.contexts import context

RECEIVED = datetime(2024, 6, 1, 10, 20, tzinfo=UTC)
"""Twenty past twelve in Berlin, five minutes after the study there; twenty past six in New York."""


def of(zone: str, received_at: datetime = RECEIVED, **attributes: Any) -> Context:
    judged = context(dataset=builders.radiograph(**{"StudyTime": "121500", **attributes}))
    return replace(judged, zone=ZoneInfo(zone), origin=replace(judged.origin, received_at=received_at))


def made(judged: Context) -> list[Dataset]:
    artifacts = [build(judged) for build in pipeline.BUILDERS.values()]
    found = [artifact for artifact in artifacts if artifact is not None]
    assert check.check_made(found, judged) == []
    return [dcmread(io.BytesIO(artifact.content)) for artifact in found]


@pytest.mark.parametrize(
    ("zone", "attributes", "wall", "offset"),
    [
        ("Europe/Berlin", {}, "20240601122000", "+0200"),
        ("Europe/Berlin", {"TimezoneOffsetFromUTC": "-0330"}, "20240601065000", "-0330"),
        ("Europe/Berlin", {"TimezoneOffsetFromUTC": "+1500"}, "20240601122000", "+0200"),
        ("Europe/Berlin", {"StudyDate": "20240115"}, "20240601112000", "+0100"),  # winter's, as the study
        ("Europe/Berlin", {"StudyDate": ""}, "20240601122000", "+0200"),
        ("Europe/Berlin", {"StudyTime": ""}, "20240601122000", "+0200"),
        ("Asia/Kathmandu", {}, "20240601160500", "+0545"),
        ("America/New_York", {"StudyTime": "0615"}, "20240601062000", "-0400"),
        ("America/New_York", {}, "20240601062000", None),  # it would have begun six hours after its image came
        ("UTC", {}, "20240601102000", None),
        ("Pacific/Kiritimati", {"StudyDate": "20240602", "StudyTime": "001500"}, "20240602002000", "+1400"),
    ],
)
def test_one_moment_by_the_clock_of_the_study(
    zone: str, attributes: dict[str, str], wall: str, offset: str | None
) -> None:
    for result in made(of(zone, **attributes)):
        assert result.get("TimezoneOffsetFromUTC") == offset
        assert result.SeriesDate + result.SeriesTime == f"{wall}.000000"
        stamp = "PresentationCreation" if result.Modality == "PR" else "Content"
        assert result[f"{stamp}Date"].value + result[f"{stamp}Time"].value == f"{wall}.000000"
        contributed = result.ContributingEquipmentSequence[-1].ContributionDateTime
        assert datetime.strptime(contributed, "%Y%m%d%H%M%S.%f%z") == RECEIVED
        assert contributed.startswith(wall)


def test_uids_follow_the_offset_and_nothing_else_of_a_zone() -> None:
    def uids(judged: Context) -> list[str]:
        return [judged.instance_uid(kind) for kind in DICOM_KINDS]

    berlin = uids(of("Europe/Berlin"))
    assert berlin == uids(of("Europe/Paris"))
    assert not set(berlin) & set(uids(of("Asia/Tokyo")))
    assert not set(uids(of("UTC", StudyTime="0800"))) & set(uids(of("UTC")))
    told = {"TimezoneOffsetFromUTC": "+0200"}
    assert uids(of("Europe/Berlin", **told)) == uids(of("Asia/Tokyo", **told))
