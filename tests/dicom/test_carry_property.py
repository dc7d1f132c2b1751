"""Carried text is what was sent, to the byte: in every character set, in none, at the top and in every item."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.dicom.read import header
from cxr_node.dicom.results import copied_attributes
from cxr_node.dicom.results.encoder import to_part10
from cxr_node.dicom.verify import check
from cxr_node.node.deliver.implicit import to_implicit
from cxr_node.node.network import file_meta
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom.contexts import of_bytes

CHARSETS = (
    None, b"ISO_IR 100", b"ISO_IR 192", b"GB18030 ", b"GBK ", b"ISO_IR 13 ", b"\\ISO 2022 IR 149", b"\\ISO 2022 IR 58 ",
    b"ISO 2022 IR 13\\ISO 2022 IR 87 ", b"ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159",
    b"ISO 2022 IR 100\\ISO 2022 IR 144 ",
    b"ISO_IR 999", b"GARBAGE ",
)  # fmt: skip
PIECES = (
    b"XR ", b"^", b"=", b"\\", b" ", b"  ", b"\0", b"A", b"\x1b$)C\xfb\xf3", b"\x1b$)C", b"\x1b$)A\xd5\xc5", b"\x1b(J",
    b"\x1b$B;3ED", b"\x1b(B", b"\x1b$(D\x30\x21", b"\x1b-L\xbb", "阿".encode("gb18030"), b"\xbf\x5c", b"\x95\x5c",
    b"\x81\x30\x81\x30", "ソ".encode("shift_jis"), "Ж李".encode(), b"M\xfcller", b"\xff\xfe", b"\xc3", b"\x1b", b"\x7f",
)  # fmt: skip
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.binary(max_size=30))
TOP = (
    "PatientName", "PatientID", "IssuerOfPatientID", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip


def raw(dataset: Dataset, keyword: str, value: bytes) -> None:
    tag = Tag(tag_for_keyword(keyword) or 0)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True, True)


def even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def kept(value: bytes) -> bytes:
    """What must arrive: the same bytes; NULs behind them become spaces, and padding alone is empty."""
    bare = value.rstrip(b" \0")
    return bare + b" " * (len(value) - len(bare)) if bare else b""


def sent_as(dataset: Dataset, keyword: str) -> bytes:
    element = dataset.get_item(keyword)
    value: Any = b"" if element is None else element.value or b""
    if isinstance(value, bytes):
        return value
    parts = [value] if isinstance(value, str) else value  # a character set is converted by whoever reads
    return even("\\".join(parts).encode("ascii"))


def file_of(source: Dataset, syntax: str) -> bytes:
    """Part 10 file with raw values as they are: pydicom's writer would encode them anew."""
    content = to_part10(source)
    if syntax == ExplicitVRLittleEndian:
        return content
    uid, data_set = file_meta.split(content)
    return file_meta.file_meta(source.SOPClassUID, uid, syntax) + to_implicit(data_set)


def carried(source: Dataset, syntax: str) -> Dataset:
    """Header of a result after a way through bytes."""
    read = header.read(file_of(source, syntax))
    assert not isinstance(read, Rejected), read
    str(read.dataset.get("PatientName")), read.text("PatientID"), read.text("StudyDescription")  # somebody looks
    target = copied_attributes.patient_and_study(read.dataset)
    target.ReferencedRequestSequence = copied_attributes.requests(read.dataset, read.ref.study_instance_uid)
    target.SOPClassUID, target.SOPInstanceUID = read.ref.sop_class_uid, read.ref.sop_instance_uid
    return dcmread(io.BytesIO(to_part10(target)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    charset=st.sampled_from(CHARSETS),
    inner=st.sampled_from(CHARSETS),
    values=st.lists(TEXT.map(even), min_size=len(TOP), max_size=len(TOP)),
    nested=st.lists(TEXT.map(even), min_size=5, max_size=5),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_value_arrives_as_it_was_sent(
    charset: bytes | None, inner: bytes | None, values: list[bytes], nested: list[bytes], syntax: Any
) -> None:
    source = builders.radiograph(SpecificCharacterSet=None, PatientID=None)
    for keyword, value in zip(TOP, values, strict=True):
        raw(source, keyword, value)
    other, facility, request, code = Dataset(), Dataset(), Dataset(), Dataset()
    raw(other, "PatientID", nested[0])
    raw(facility, "LocalNamespaceEntityID", nested[1])
    qualifiers = Dataset()
    qualifiers.AssigningFacilitySequence = [facility]
    other.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    raw(request, "RequestedProcedureDescription", nested[2])
    raw(request, "AccessionNumber", nested[3])
    raw(code, "CodeMeaning", nested[4])
    request.RequestedProcedureCodeSequence = [code]
    for item in (other, request):
        if inner is not None:
            raw(item, "SpecificCharacterSet", inner)
    source.OtherPatientIDsSequence, source.RequestAttributesSequence = [other], [request]
    if charset is not None:
        raw(source, "SpecificCharacterSet", charset)
    result = carried(source, syntax)
    assert {keyword: sent_as(result, keyword) for keyword in TOP} == dict(zip(TOP, map(kept, values), strict=True))
    assert sent_as(result, "SpecificCharacterSet") == (charset or b"")
    _check_items(result, [kept(value) for value in nested], inner or b"")


def _check_items(result: Dataset, nested: list[bytes], inner: bytes) -> None:
    others = result.get("OtherPatientIDsSequence") or []
    assert len(others) == int(any(nested[:2]))
    for item in others:
        assert sent_as(item, "SpecificCharacterSet") == inner
        assert sent_as(item, "PatientID") == nested[0]
        if nested[1]:
            facility = item.IssuerOfPatientIDQualifiersSequence[0].AssigningFacilitySequence[0]
            assert sent_as(facility, "LocalNamespaceEntityID") == nested[1]
    for item in result.ReferencedRequestSequence:
        assert sent_as(item, "SpecificCharacterSet") == inner
        assert sent_as(item, "RequestedProcedureDescription") == nested[2]
        if nested[3]:
            assert sent_as(item, "AccessionNumber") == nested[3]
        if nested[4]:
            assert sent_as(item.RequestedProcedureCodeSequence[0], "CodeMeaning") == nested[4]


def test_an_accession_number_is_not_moved_into_another_character_set() -> None:
    request = Dataset()
    raw(request, "SpecificCharacterSet", b"ISO_IR 192")
    raw(request, "RequestedProcedureID", b"RP")
    for number, expected in ((b"A\xfc", b""), (b"\x1b$B;3ED\x1b(B", b""), (b"ACC1", b"ACC1")):
        source = builders.radiograph(RequestAttributesSequence=[request])
        raw(source, "AccessionNumber", even(number))
        item = carried(source, ExplicitVRLittleEndian).ReferencedRequestSequence[0]
        assert sent_as(item, "AccessionNumber").rstrip() == expected


SAMPLES = {
    "korean": (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "japanese": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87 ",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "chinese, an empty group": (b"\\ISO 2022 IR 58 ", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab= "),
    "GB18030 with a backslash": (b"GB18030 ", b"Wang^XiaoDong=\xcd\xf5^\x81\x5c\xb6\xab="),
    "Shift JIS, which no set allows": (b"ISO_IR 13 ", b"\x83\x5c^\x95\x5c"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", pipeline.BUILDERS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_whole_results_carry_it_and_pass_our_check(kind: ResultKind, sample: str) -> None:
    charset, value = SAMPLES[sample]
    source = builders.radiograph(SpecificCharacterSet=None)
    for keyword in ("PatientName", "PatientID", "StudyDescription"):
        raw(source, keyword, even(value))
    raw(source, "SpecificCharacterSet", charset)
    judged = of_bytes(file_of(source, ExplicitVRLittleEndian))
    artifact = pipeline.BUILDERS[kind](judged)
    assert artifact is not None
    assert not check.check_made([artifact], judged)
    result = dcmread(io.BytesIO(artifact.content))
    for keyword in ("PatientName", "PatientID", "StudyDescription"):
        assert sent_as(result, keyword) == even(value)
