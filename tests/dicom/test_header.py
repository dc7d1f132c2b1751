"""Reading and inspecting headers, and what hostile bytes may do to it: nothing but a coded refusal."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header, keys
from cxr_node.domain import Reason, View
from cxr_node.errors import InstanceError, ResourceError, UndecodableError
from cxr_node.outcome import Rejected
from tests.builders import part10, radiograph
from tests.shared import shared

SYNTAXES = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


def read(content: bytes) -> header.Source:
    source = header.read(content)
    assert isinstance(source, header.Source), source
    return source


def refused(content: bytes, tmp_path: Path) -> str:
    """Both ways in refuse; the sentence of the receiver's."""
    rejected = header.read(content)
    assert isinstance(rejected, Rejected)
    assert rejected.reason in (Reason.UNREADABLE_HEADER, Reason.IDENTITY_EMPTY)
    path = tmp_path / "object"
    path.write_bytes(content)
    with pytest.raises(InstanceError) as caught:
        header.inspect(path)
    return str(caught.value)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian element with a long or short length."""
    head = struct.pack("<HH2s", group, number, vr)
    long = vr in (b"SQ", b"OB", b"OW", b"UN", b"UT")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def with_front(inserted: bytes, **overrides: Any) -> bytes:
    """A valid file with raw elements put at the place of (0008,0000)."""
    content = part10(radiograph(**overrides))
    at = content.index(struct.pack("<HH2s", 0x0008, 0x0005, b"CS"))
    return content[:at] + inserted + content[at:]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_both_ways_in_name_the_same_instance(syntax: str, tmp_path: Path) -> None:
    dataset = radiograph()
    content = part10(dataset, syntax)
    path = tmp_path / "object"
    path.write_bytes(content)
    inspected = header.inspect(path)
    assert inspected.ref == read(content).ref
    assert inspected.ref.sop_instance_uid == dataset.SOPInstanceUID
    assert inspected.ref.study_instance_uid == dataset.StudyInstanceUID
    assert inspected.ref.series_instance_uid == dataset.SeriesInstanceUID
    assert inspected.ref.sop_class_uid == dataset.SOPClassUID
    assert inspected.ref.transfer_syntax_uid == syntax
    assert inspected.ref.accession_key == keys.accession_key("ACC00001")
    shape = (inspected.rows, inspected.columns, inspected.bits_allocated, inspected.samples, inspected.frames)
    assert shape == (320, 288, 16, 1, 1)


def test_inspect_does_not_read_pixel_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "object"
    path.write_bytes(part10(radiograph()))
    taken = 0
    plain_open = Path.open

    class Counting:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def read(self, count: int) -> bytes:
            nonlocal taken
            found: bytes = self.file.read(count)
            taken += len(found)
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(Path, "open", lambda self, mode="r": Counting(plain_open(self, mode, buffering=0)))
    header.inspect(path)
    assert 0 < taken < path.stat().st_size - 320 * 288 * 2  # heads, and the values that are wanted


def test_a_missing_file_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(ResourceError):
        header.inspect(tmp_path / "absent")


def test_patient_key_says_same_or_other_and_no_more() -> None:
    def key(**overrides: Any) -> str:
        return read(part10(radiograph(**overrides))).ref.patient_key

    assert key() == key(PatientName="Other^Spelling")
    assert key(PatientID=" TEST-0001 ") == key()
    assert len({key(), key(PatientID="B"), key(StudyInstanceUID="1.2.3")}) == 3
    assert key(IssuerOfPatientID="B") == key()
    assert key(PatientID=None) == key(PatientID="") == ""
    assert "TEST" not in key()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize(
    "value", [None, "", "../../etc/x", "1.2.3\\1.2.4", "1." + "2" * 64, "1.2.a", "1.2.\x01", "..", "1..2", "1.2."]
)
@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning", "ignore:The value length:UserWarning")
def test_missing_and_ill_formed_uids_are_refused(keyword: str, value: str | None, tmp_path: Path) -> None:
    dataset = radiograph()
    del dataset[keyword]
    raw = b""
    if value is not None:
        tag = {"StudyInstanceUID": (0x20, 0xD), "SeriesInstanceUID": (0x20, 0xE)}.get(
            keyword, (0x8, 0x18 if keyword == "SOPInstanceUID" else 0x16)
        )
        text = value.encode() + b"\0" * (len(value) % 2)
        raw = element(*tag, b"UI", text)
    content = part10(dataset)
    at = content.index(struct.pack("<HH2s", 0x0008, 0x0005, b"CS"))
    sentence = refused(content[:at] + raw + content[at:], tmp_path)
    assert "missing or ill-formed" in sentence
    assert "etc" not in sentence


def test_an_object_without_study_has_no_identity() -> None:
    rejected = header.read(part10(radiograph(StudyInstanceUID=None)))
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Reason.IDENTITY_EMPTY


def test_file_meta_must_be_there_and_agree(tmp_path: Path) -> None:
    content = part10(radiograph())
    refused(content[132:], tmp_path)
    refused(bytes(128) + b"DICM" + content[content.index(struct.pack("<HH2s", 8, 5, b"CS")) :], tmp_path)
    uid = radiograph().SOPInstanceUID.encode()
    other = content.replace(uid, uid[:-1] + b"9", 1)  # the first is that of the file meta information
    assert "contradicts" in refused(other, tmp_path)


def test_deflated_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    content = part10(radiograph())
    deflated = str(DeflatedExplicitVRLittleEndian).encode() + b"\0"
    old = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
    new = element(2, 0x10, b"UI", deflated + b"\0" * (len(deflated) % 2))
    assert "deflated" in refused(content.replace(old, new), tmp_path)


@pytest.mark.parametrize("depth", [20, 5_000])
@pytest.mark.parametrize("defined", [True, False], ids=["defined length", "undefined length"])
def test_deep_sequences_are_refused(depth: int, defined: bool, tmp_path: Path) -> None:
    nested = b""
    for _ in range(depth):
        if defined:
            nested = element(8, 0x1140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(nested)) + nested)
        else:
            opening = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
            nested = opening + item + nested + closing
    rejected = header.read(with_front(nested))
    assert isinstance(rejected, Rejected)
    path = tmp_path / "object"
    path.write_bytes(with_front(nested))
    with pytest.raises(InstanceError):
        header.inspect(path)


def test_a_sequence_of_the_usual_depth_is_taken(tmp_path: Path) -> None:
    nested = b""
    for _ in range(8):
        nested = element(8, 0x1140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(nested)) + nested)
    path = tmp_path / "object"
    path.write_bytes(with_front(nested))
    header.inspect(path)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, JPEGLSLossless, ImplicitVRLittleEndian], ids=lambda u: u.name
)
@pytest.mark.parametrize("garbage", [b"\xff\xfe" * 300, bytes(2048), bytes(range(256)) * 3, part10(radiograph())[400:]])
def test_garbage_after_the_pixel_data_is_no_success(syntax: str, garbage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(part10(radiograph(), syntax) + garbage)
    with pytest.raises(InstanceError):
        header.inspect(path)


@pytest.mark.parametrize(
    "trailer",
    [b"", element(0xFFFC, 0xFFFC, b"OB", bytes(600)), element(0xFFFA, 0xFFFA, b"SQ", b"")],
    ids=["nothing", "Data Set Trailing Padding", "Digital Signatures"],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=lambda uid: uid.name)
def test_what_may_follow_the_pixel_data(syntax: str, trailer: bytes, tmp_path: Path) -> None:
    """PS3.3 C.12.1.1.3, PS3.10 7.2."""
    path = tmp_path / "object"
    path.write_bytes(part10(radiograph(), syntax) + trailer)
    header.inspect(path)


@pytest.mark.parametrize(
    "content", [b"no item at all, but words", struct.pack("<HHI", 0xFFFE, 0xE000, 9) + b"\xff" * 9]
)
def test_a_sequence_without_items_is_no_success(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(with_front(element(8, 0x1140, b"SQ", content)))
    with pytest.raises(InstanceError):
        header.inspect(path)


def test_endless_lengths_and_endless_headers_are_refused(tmp_path: Path) -> None:
    huge = struct.pack("<HH2sHI", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFF0)
    assert "middle of an attribute" in refused(with_front(huge), tmp_path)
    many = b"".join(element(0x0009, 0x1000 + i % 0xE000, b"LO", b"") for i in range(250_000))
    assert "larger" in refused(with_front(many), tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 131, 132, 140, 200, 400, 900, 20_000, -2])
def test_cut_files_are_refused(keep: int, tmp_path: Path) -> None:
    refused(part10(radiograph())[:keep], tmp_path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_cut_fragments_are_refused(syntax: str, tmp_path: Path) -> None:
    assert "middle of the pixel data" in refused(part10(radiograph(), syntax)[:-20], tmp_path)


def test_garbage_after_the_preamble_is_refused(tmp_path: Path) -> None:
    for seed in range(20):
        garbage = bytes((i * i * (seed + 3) + seed) % 251 for i in range(3000))
        refused(bytes(128) + b"DICM" + garbage, tmp_path)
        refused(part10(radiograph())[:330] + garbage, tmp_path)


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(part10(radiograph(Rows=65535, Columns=65535)))
    with pytest.raises(InstanceError, match="larger than any radiograph"):
        header.inspect(path)


def test_an_object_without_an_image_is_inspected_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "object"
    without = dict.fromkeys(("PixelData", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel"))
    path.write_bytes(part10(radiograph(**without)))
    inspected = header.inspect(path)
    assert (inspected.rows, inspected.columns, inspected.bits_allocated, inspected.samples) == (0, 0, 0, 1)


def test_broken_attributes_are_dropped_and_named() -> None:
    content = with_front(b"", RescaleSlope="1.00", KVP="66.0")
    broken = content.replace(b"DS\x04\x0066.0", b"DS\x04\x00a.b ").replace(b"DS\x04\x001.00", b"DS\x04\x00one ")
    source = read(broken)
    assert "KVP" not in source.dataset
    assert source.unreadable == {0x00180060, 0x00281053}
    with pytest.raises(UndecodableError):
        pixels.decode(source, Admission())


def test_private_attributes_do_not_come_in() -> None:
    dataset = radiograph()
    dataset.private_block(0x0011, "VENDOR", create=True).add_new(1, "LO", "secret")
    assert not any(tag.is_private for tag in read(part10(dataset)).dataset)


@pytest.mark.parametrize("charset", ["ISO_IR 999", "GARBAGE\\ISO 2022 IR 87", "ISO_IR 192"])
def test_strange_character_sets_do_no_harm(charset: str) -> None:
    content = part10(radiograph(PatientID="ABCDEF", StudyDescription="Chest lateral"))
    old = element(8, 5, b"CS", b"ISO_IR 100")
    new = element(8, 5, b"CS", charset.encode() + b" " * (len(charset) % 2))
    source = read(content.replace(old, new).replace(b"ABCDEF", b"M\xfcller"))
    assert source.text("PatientID")
    assert source.ref.patient_key
    assert source.view is View.PA


@pytest.mark.parametrize(
    ("age", "birth", "study", "years"),
    [
        ("003Y", None, None, 3.0), ("018M", None, None, 1.5), ("365D", None, None, 1.0),
        ("052W", None, None, 364 / 365),
        ("000D", None, None, 0.0), ("003Y", "19500101", "20240101", 3.0), (None, "20200229", "20240228", 3.99),
        (None, "20200229", "20240229", 4.0), (None, "20200301", "20210301", 1.0), ("62", "19400305", "20040826", 64.5),
        ("62", None, "20240101", None), ("Y003", "", "20240101", None), ("999Y", None, None, None),
        (None, "20250101", "20240101", None), (None, "20241301", "20240101", None), (None, None, None, None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_age(age: str | None, birth: str | None, study: str | None, years: float | None) -> None:
    overrides = {"PatientAge": age, "PatientBirthDate": birth, "StudyDate": study, "AcquisitionDate": None}
    found = read(part10(radiograph(**overrides))).age_years
    assert found == (years if years is None else pytest.approx(years, abs=0.03))


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_age_counts_birthdays_not_days() -> None:
    """A child is one year old on the day, not 365.25 days later."""
    on_the_day = radiograph(PatientAge=None, PatientBirthDate="20210602", StudyDate="20220602")
    before = radiograph(PatientAge=None, PatientBirthDate="20210602", StudyDate="20220601")
    assert (read(part10(on_the_day)).age_years or 0) >= 1
    assert (read(part10(before)).age_years or 0) < 1


def test_several_values_and_wrong_kinds_of_values_are_told_apart() -> None:
    source = read(part10(radiograph(WindowCenter=["1", "2"], StudyDescription="Chest")))
    assert source.numbers("WindowCenter") == (1.0, 2.0)
    assert source.integer("WindowCenter") == 1
    assert source.numbers("StudyDescription") == source.numbers("Absent") == ()
    assert source.text("ImageType") == "ORIGINAL\\PRIMARY"


_CONTENT = part10(radiograph())
_HEADER_END = len(_CONTENT) - 320 * 288 * 2


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.lists(st.tuples(st.integers(132, _HEADER_END), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.integers(0, 3),
)
def test_mutated_files_are_read_or_refused(
    edits: list[tuple[int, bytes]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only a Source, a Rejected, an InstanceError or an UndecodableError ever comes out."""
    content = bytearray(_CONTENT)
    for at, change in edits:
        content[at : at + len(change)] = change
    mutated = bytes(content[: len(content) - cut * 7919])
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(mutated)
    try:
        inspected = header.inspect(path)
    except InstanceError:
        inspected = None
    source = header.read(mutated)
    if isinstance(source, Rejected):
        assert source.reason in (Reason.UNREADABLE_HEADER, Reason.IDENTITY_EMPTY)
        return
    assert inspected is None or inspected.ref == source.ref
    assert source.age_years is None or source.age_years >= 0
    assert source.view in View
    with contextlib.suppress(UndecodableError):
        pixels.decode(source, Admission())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=600))
def test_random_bytes_are_refused(garbage: bytes) -> None:
    assert isinstance(header.read(garbage), Rejected)
    assert isinstance(header.read(_CONTENT[:320] + garbage), Rejected)


@pytest.mark.shared
def test_real_radiographs_are_read() -> None:
    folder = shared("dicom")
    found = {path.stem: read(path.read_bytes()) for path in folder.glob("*.dcm")}
    assert {name: source.age_years for name, source in found.items()} == {
        "cr_8bit_jpeg_invalid_age": None,
        "cr_philips_mono1_15bit_j2k": pytest.approx(64.5, abs=0.1),
        "dx_in_sc_class_no_view": None,
    }
    assert {name: source.view.value for name, source in found.items()} == {
        "cr_8bit_jpeg_invalid_age": "PA",
        "cr_philips_mono1_15bit_j2k": "PA",
        "dx_in_sc_class_no_view": "unknown",
    }
    for path in folder.glob("*.dcm"):
        assert header.inspect(path).ref == found[path.stem].ref


def test_the_data_set_is_cut_loose_from_the_file() -> None:
    source = read(part10(radiograph()))
    assert type(source.dataset) is Dataset
    assert "PatientName" not in repr(source)
