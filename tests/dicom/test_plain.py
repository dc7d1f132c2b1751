"""Our parser reads what pydicom reads, however sequences are encoded."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_node.dicom.results import basic_text_sr
from cxr_node.dicom.verify import plain
from cxr_node.errors import InstanceError
from tests.builders import part10, radiograph
from tests.dicom.contexts import context


def through_pydicom(content: bytes) -> Dataset:
    dataset = dcmread(io.BytesIO(content))
    del dataset.PixelData
    return dataset


def nested(*, undefined_items: bool, undefined_sequences: bool) -> Dataset:
    scheme, code, request = Dataset(), Dataset(), Dataset()
    scheme.CodingSchemeDesignator = "99X"
    scheme.Rows = 700
    code.CodeValue, code.CodeMeaning = "1", "One\u00e4"
    code.PurposeOfReferenceCodeSequence = [scheme, Dataset()]
    request.RequestedProcedureCodeSequence = [code, code]
    request.RequestedProcedureID = "7"
    source = radiograph(RequestAttributesSequence=[request, Dataset(), request], ReferencedStudySequence=[])
    for item in (scheme, code, request):
        item.is_undefined_length_sequence_item = undefined_items
    for holder, keyword in ((source, "RequestAttributesSequence"), (request, "RequestedProcedureCodeSequence")):
        holder[keyword].is_undefined_length = undefined_sequences
    return source


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined_items", [False, True])
@pytest.mark.parametrize("undefined_sequences", [False, True])
def test_sequences_however_encoded(syntax: str, undefined_items: bool, undefined_sequences: bool) -> None:
    source = nested(undefined_items=undefined_items, undefined_sequences=undefined_sequences)
    content = part10(source, syntax)
    found = plain.read(content).dataset
    assert found == plain.plain(through_pydicom(content))
    (request, empty, _) = plain.items(found, "RequestAttributesSequence")
    (code, _) = plain.items(request, "RequestedProcedureCodeSequence")
    assert empty == {} and plain.text(code, "CodeMeaning") == "One\u00e4"
    assert plain.text(plain.items(code, "PurposeOfReferenceCodeSequence")[0], "Rows") == "700"


def test_an_element_that_its_item_cuts_off_is_not_read_past() -> None:
    content = basic_text_sr.build(context()).content
    value = b"Diagnostic Imaging Report "
    start = content.index(b"LO" + len(value).to_bytes(2, "little") + value) + 2
    too_long = content[:start] + (len(value) + 40).to_bytes(2, "little") + content[start + 2 :]
    assert plain.read(content).dataset
    with pytest.raises(InstanceError):
        plain.read(too_long)
