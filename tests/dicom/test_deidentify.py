"""A radiograph without its patient: nothing that names anybody stays, and the pixels are the same."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from cxr_node.config.schema import Admission
from cxr_node.dicom.deidentify import KEPT, KEPT_ITEMS, anonymous
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.errors import InstanceError
from cxr_node.outcome import Rejected
from tests import builders

KEY = b"k" * 32
CANARY = "CANARY"
TEXT = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def read(content: bytes) -> header.Source:
    source = header.read(content)
    assert not isinstance(source, Rejected)
    return source


def everything_filled() -> Dataset:
    """An image with a canary in every text of the dictionary that is not kept, in items, private elements, overlays."""
    dataset = builders.radiograph()
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if vr in TEXT and keyword and not retired and tag >> 16 >= 8 and keyword not in (*KEPT, "SpecificCharacterSet"):
            dataset.add_new(tag, vr, CANARY)
    dataset.PatientID = CANARY
    item = builders.item(CodeValue=CANARY, CodingSchemeDesignator=f"99{CANARY}", CodeMeaning=CANARY)
    dataset.ViewCodeSequence = [item]
    dataset.ProcedureCodeSequence = [item]
    dataset.VOILUTSequence = [builders.item(LUTDescriptor=[2, 0, 16], LUTExplanation=CANARY, LUTData=b"\0\0\1\0")]
    dataset["VOILUTSequence"].value[0]["LUTData"].VR = "OW"
    dataset.private_block(0x0009, CANARY, create=True).add_new(1, "LO", CANARY)
    dataset.add_new(0x60003000, "OW", CANARY.encode())
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_nothing_that_was_said_of_the_patient_stays(syntax: str) -> None:
    content = builders.part10(everything_filled(), syntax)
    assert content.count(CANARY.encode()) > 100
    found = anonymous(content, KEY)
    assert CANARY.encode() not in found.content
    before, after = read(content), read(found.content)
    for keyword in ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "patient_key"):
        assert getattr(before.ref, keyword) != getattr(after.ref, keyword)
    assert not any(part in found.content for part in (before.ref.study_instance_uid.encode(), b"20240601", b"20210203"))


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("BodyPartExamined", "CS", CANARY),
        ("ImageType", "CS", ["ORIGINAL", CANARY]),
        ("ViewPosition", "CS", CANARY),
        ("RescaleType", "LO", CANARY),
        ("KVP", "LO", CANARY),
        ("PatientOrientation", "CS", [CANARY, "F"]),
        ("ViewPosition", "PN", "AP"),
    ],
)
def test_what_stays_is_a_word_of_the_standard(keyword: str, vr: str, value: Any) -> None:
    """A modality may have written a name anywhere."""
    dataset = builders.radiograph()
    if keyword in dataset:
        del dataset[keyword]
    dataset.add_new(keyword, vr, value)
    after = anonymous(builders.part10(dataset), KEY).content
    assert CANARY.encode() not in after and keyword not in dcmread(io.BytesIO(after))


def test_a_code_stays_without_what_was_said_it_means() -> None:
    dataset = builders.radiograph()
    dataset.ViewCodeSequence = [
        builders.item(CodeValue="272479007", CodingSchemeDesignator="SCT", CodeMeaning=CANARY),
        builders.item(CodeValue=CANARY, CodingSchemeDesignator="SCT", CodeMeaning="postero-anterior"),
    ]
    after = anonymous(builders.part10(dataset), KEY).content
    assert CANARY.encode() not in after
    assert [code.CodeValue for code in dcmread(io.BytesIO(after)).ViewCodeSequence] == ["272479007"]


def test_what_is_there_is_kept_or_a_pseudonym_or_empty_or_says_how() -> None:
    after = dcmread(io.BytesIO(anonymous(builders.part10(builders.radiograph()), KEY).content))
    said = {"PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
            "LongitudinalTemporalInformationModified"}  # fmt: skip
    pseudonyms = {"PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
    described = {"BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"}
    for element in after:
        allowed = element.keyword in {*KEPT, *KEPT_ITEMS, *said, *pseudonyms, *described, "PixelData"}
        assert allowed or not element.value, element.keyword
        assert dictionary_VR(element.tag) not in ("DA", "DT", "TM") or not element.value
    assert after.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == ["113100"]
    assert after.PatientName.family_name == after.PatientID


@pytest.mark.parametrize("kind", ["<u1", "<u2", "<i2"])
def test_the_image_is_the_same_to_the_last_pixel(kind: str) -> None:
    stored = (builders.chest(64, 80) // (16 if kind == "<u1" else 1)).astype(kind)
    stored = stored - np.array(1000, kind) if kind == "<i2" else stored
    content = builders.part10(builders.radiograph(stored=stored))
    before = pixels.decode(read(content), Admission())
    after = pixels.decode(read(anonymous(content, KEY).content), Admission())
    assert np.array_equal(before.pixels, after.pixels)
    assert (before.view, before.pixel_aspect) == (after.view, after.pixel_aspect)


def test_what_was_written_into_unused_bits_goes() -> None:
    stored = builders.chest(64, 80) | np.uint16(0xA000)
    dataset = builders.radiograph(stored=stored, BitsStored=12, HighBit=11)
    after = dcmread(io.BytesIO(anonymous(builders.part10(dataset), KEY).content))
    assert after.pixel_array.max() < 1 << 12


def test_pseudonyms_hold_within_one_export_alone() -> None:
    def made(number: int, key: bytes = KEY, **more: Any) -> Dataset:
        return dcmread(io.BytesIO(anonymous(builders.part10(builders.radiograph(number, **more)), key).content))

    first, second = made(1), made(2, PatientID="TEST-0001")
    assert first.PatientID == second.PatientID and first.StudyInstanceUID != second.StudyInstanceUID
    assert made(1) == first
    assert made(1, b"x" * 32).PatientID != first.PatientID != made(3).PatientID


@pytest.mark.parametrize(("said", "known"), [("YES", True), ("NO", False), (None, None)])
def test_what_the_header_says_of_burned_in_text_is_passed_on(said: str | None, known: bool | None) -> None:
    content = builders.part10(builders.radiograph(BurnedInAnnotation=said))
    assert anonymous(content, KEY).is_burned_in is known


@pytest.mark.parametrize("content", [b"", builders.part10(builders.radiograph(PixelData=None))])
def test_what_cannot_be_decoded_is_refused(content: bytes) -> None:
    with pytest.raises(InstanceError):
        anonymous(content, KEY)
