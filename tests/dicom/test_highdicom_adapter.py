"""No header makes highdicom raise: whatever a source lacks or garbles, patient and study arrive byte for byte."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from cxr_node import pipeline
from cxr_node.dicom.read import admission
from cxr_node.dicom.results import copied_attributes, highdicom_adapter
from cxr_node.dicom.results.encoder import to_bytes, to_part10
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom.contexts import context, of_bytes

BY_HIGHDICOM = (ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION, ResultKind.KEY_OBJECT)
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Without one of these there is no instance to answer for."""
TEXTS = (
    b"U ", b"19", b"", b" ", b"\0\0", b"A\\B ", b"A\\\\", b"\\", b"1e999 ", b"NaN ", b"-1", b"0 ", b"1.5\\x",
    b"99999999", b"20240231", b"256160", b"M\xfcller", b"\x1b$B;3ED\x1b(B", b"ISO_IR 999", b"GARBAGE ", b"\xff\xfe",
    b"^^^^^^=^=^ ", b"X" * 66, b"INVERSE ", b"LINEAR_EXACT", b"SIGMOID ", b"+9999 ", b"999W",
)  # fmt: skip
STATED: dict[str, Any] = {
    "RescaleType": "US",
    "VOILUTFunction": "LINEAR",
    "TimezoneOffsetFromUTC": "+0100",
    "FrameOfReferenceUID": "1.2.3.4",
    "PixelSpacing": ["0.2", "0.2"],
    "ImagePositionPatient": ["0", "0", "0"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "LossyImageCompressionRatio": "10",
    "LossyImageCompressionMethod": "ISO_10918_1",
    "PatientSpeciesDescription": "Human",
    "ClinicalTrialSubjectID": "S1",
    "NumberOfFrames": "1",
}
"""Beside what the synthetic radiograph has: what highdicom would read, or copy."""
GARBLED = sorted({element.keyword for element in builders.radiograph(**STATED) if element.VR != "SQ"} - {*UIDS})


def garbled(changes: Mapping[str, bytes | None], **overrides: Any) -> bytes:
    """Part 10 file of a radiograph with some attributes as raw bytes, or without them."""
    source = builders.radiograph(**STATED | {"PixelData": None} | overrides)
    for keyword, value in changes.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        if value is None:
            source.pop(tag, None)
        else:
            vr = dictionary_VR(tag).split(" or ")[0]
            even = value + b" " * (len(value) % 2)
            source[tag] = RawDataElement(tag, vr, len(even), even, 0, False, True, True)
    return to_part10(source)


def carried(dataset: Dataset) -> bytes:
    """Encode patient and study as they stand in an object, and whether they are empty."""
    wanted = {Tag(tag_for_keyword(keyword) or 0) for keyword in copied_attributes.PATIENT_AND_STUDY}
    return to_bytes(Dataset({tag: dataset.get_item(tag) for tag in sorted(wanted) if tag in dataset}))  # type: ignore[dict-item]


def check(content: bytes) -> None:
    of = of_bytes(content)
    expected = copied_attributes.patient_and_study(of.source.dataset)
    copied_attributes.stamp(expected, of.clock)  # the offset from UTC of our own times
    for kind in BY_HIGHDICOM:
        artifact = pipeline.BUILDERS[kind](of)
        assert artifact is not None
        dataset = dcmread(io.BytesIO(artifact.content))
        assert carried(dataset) == carried(expected), kind
        assert dataset.StudyInstanceUID == of.source.ref.study_instance_uid
        again = pipeline.BUILDERS[kind](of_bytes(content))
        assert isinstance(again, Artifact)
        assert again.content == artifact.content, kind


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.dictionaries(
        st.sampled_from(GARBLED), st.one_of(st.none(), st.sampled_from(TEXTS), st.binary(max_size=40)), max_size=12
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_patient_and_study_arrive_whatever_else_is_garbled(changes: dict[str, bytes | None]) -> None:
    content = garbled(changes)
    try:
        of_bytes(content)
    except AssertionError:  # refused before a result is made
        assume(False)
    check(content)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("value", [None, b"", b"A\\B ", b"\xff\xfe\x1b$"])
def test_patient_and_study_arrive_though_nothing_of_it_is_valid(value: bytes | None) -> None:
    changes = {keyword: value for keyword in GARBLED if dictionary_VR(keyword) not in ("US", "OB", "OW", "US or SS")}
    check(garbled(changes))


@pytest.mark.parametrize(
    "changes", [{"PatientSex": b"U "}, {"PatientBirthDate": b"19"}, {"StudyID": None}, {"StudyDate": None}], ids=str
)
def test_headers_on_which_highdicom_raises_are_kept_from_it(
    changes: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = garbled(changes)
    check(content)
    monkeypatch.setattr(highdicom_adapter, "source_image", lambda of: of.source.dataset)
    for kind in BY_HIGHDICOM:
        with pytest.raises((AttributeError, ValueError)):
            pipeline.BUILDERS[kind](of_bytes(content))


@pytest.mark.parametrize("sop_class_uid", admission.SOP_CLASSES)
def test_every_class_that_is_admitted_may_be_referred_to(sop_class_uid: str) -> None:
    check(garbled({}, SOPClassUID=sop_class_uid))


@pytest.mark.parametrize("kind", BY_HIGHDICOM)
def test_nothing_is_said_of_highdicom_or_of_the_present(kind: ResultKind) -> None:
    artifact = pipeline.BUILDERS[kind](context())
    assert artifact is not None
    dataset = dcmread(io.BytesIO(artifact.content))
    assert b"highdicom" not in artifact.content.lower()
    assert b"1.2.826.0.1.3680043.9.7433" not in artifact.content  # its Implementation Class UID
    now = datetime.now(UTC)
    days = {f"{now + timedelta(days=days):%Y%m%d}" for days in (-1, 0, 1)}
    assert not {str(element.value)[:8] for element in dataset.iterall()} & days
    assert "InstanceCreationDate" not in dataset
    assert len(dataset.ContributingEquipmentSequence) == 2


def test_the_image_that_highdicom_is_given_names_nobody() -> None:
    named = {element.keyword for element in highdicom_adapter.source_image(context()) if element.value}
    assert {keyword for keyword in named if keyword in copied_attributes.PATIENT_AND_STUDY} == set()
