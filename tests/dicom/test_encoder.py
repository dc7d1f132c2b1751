"""Our encoder against pydicom's: whole files, byte by byte, of every kind, case and character set."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxr_node.dicom.results import context, encoder, sr_items
from cxr_node.dicom.results.sr_items import Relation
from cxr_node.result_kinds import ResultKind
from tests import builders
from tests.dicom import contexts
from tests.dicom.contexts import MADE, of_bytes

NAMES = [("1.2.840.10008.5.1.4.1.1.7", "2.25.1"), ("1.2.840.10008.5.1.4.1.1.88.34", "2.25.12")]


def by_pydicom(dataset: Dataset) -> bytes:
    """The same file as pydicom writes it, told that what was carried is already encoded."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    keep_bytes(dataset)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def keep_bytes(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, dataset._character_set)
    for element in dataset.elements():
        for item in element.value if element.VR == "SQ" and not isinstance(element, RawDataElement) else ():
            keep_bytes(item)


def read_and_written_again(content: bytes) -> bytes:
    """What pydicom writes after it has read every element, and found each in the VR of its dictionary."""
    dataset = dcmread(io.BytesIO(content))
    for element in dataset.iterall():
        assert element.VR in dictionary_VR(element.tag).split(" or "), element.tag
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Dataset, Sequence[tuple[str, str]], list[bytes]]]:
    """What the makers of results hand to the encoder from now on, and get from it."""
    seen = []

    def watch(dataset: Dataset, names: Sequence[tuple[str, str]]) -> list[bytes]:
        found = encoder.to_part10_each(dataset, names)
        seen.append((dataset, names, found))
        return found

    monkeypatch.setattr(context, "to_part10_each", watch)
    return seen


def require_pydicoms(seen: list[tuple[Dataset, Sequence[tuple[str, str]], list[bytes]]]) -> None:
    for dataset, names, found in seen:
        for (dataset.SOPClassUID, dataset.SOPInstanceUID), content in zip(names, found, strict=True):
            assert content == by_pydicom(dataset)


@pytest.mark.parametrize(("kind", "case"), MADE)
def test_every_result_is_encoded_as_pydicom_does(kind: ResultKind, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = encoded(monkeypatch)
    artifact = pipeline.BUILDERS[kind](contexts.context(case))
    assert artifact is not None
    ((_, _, found),) = seen
    assert [one.content for one in artifact.sop_class_choices] == found
    assert len(found) == (3 if kind is ResultKind.MEASUREMENTS else 1)
    require_pydicoms(seen)


@pytest.mark.parametrize(("kind", "case"), MADE)
def test_pydicom_writes_what_it_read(kind: ResultKind, case: str) -> None:
    """Content items are encoded without pydicom: it must agree with every one of them."""
    artifact = pipeline.BUILDERS[kind](contexts.context(case))
    assert artifact is not None
    for one in artifact.sop_class_choices:
        assert read_and_written_again(one.content) == one.content


def test_content_items_are_those_that_pydicom_makes() -> None:
    """Of every type: set element by element and written, they are the same bytes."""
    name, source = Code("1", "99X", "odd"), sr_items.image(Relation.SELECTED_FROM, None, "1.2", "1.2.3")
    for made in (
        sr_items.text(Relation.CONTAINS, name, "odd", [source]),
        sr_items.uid_ref(Relation.HAS_OBS_CONTEXT, name, "1.2.3"),
        sr_items.number(Relation.CONTAINS, name, 1.5, name, [source]),
        sr_items.code(Relation.CONTAINS, name, name, [source]),
        sr_items.polyline(Relation.CONTAINS, name, ((0.5, 1.25), (3.0, 4.0)), source),
        sr_items.container(Relation.CONTAINS, name, [source], "1410"),
    ):
        item = read_dataset(io.BytesIO(made[8:]), False, True)
        assert encoder.item(encoder.to_bytes(built_again(item))) == made


def built_again(item: Dataset) -> Dataset:
    """The same, element by element, by keyword."""
    again = Dataset()
    for element in item:
        value = [built_again(each) for each in element.value] if element.VR == "SQ" else element.value
        setattr(again, element.keyword, value)
    return again


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
    ],
)
def test_carried_text_of_any_character_set(charset: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = encoded(monkeypatch)
    request = Dataset()
    request.AccessionNumber, request.RequestedProcedureDescription = "1", name.replace("^", " ")
    source = builders.radiograph(
        SpecificCharacterSet=charset, PatientName=name, StudyDescription=name, RequestAttributesSequence=[request]
    )
    of = of_bytes(builders.part10(source))
    for kind in (ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP):
        pipeline.BUILDERS[kind](of)
    assert len(seen) == 3
    require_pydicoms(seen)


@pytest.mark.parametrize("charset", [None, "ISO_IR 100"])
def test_elements_that_results_do_not_have_yet(charset: str | None) -> None:
    dataset, item = Dataset(), Dataset()
    if charset is not None:
        dataset.SpecificCharacterSet = charset
        dataset.ImageComments = "gr\u00f6\u00dfer"
        item.ImageComments = "gr\u00f6\u00dfer\\\\"
    dataset.SOPClassUID, dataset.SOPInstanceUID = NAMES[0]
    dataset.PatientName = "A^B=C"
    dataset.OtherPatientNames = ["A^B", "C"]
    dataset.InstanceNumber = 7
    dataset.WindowCenter = ["1.5", "-2e3"]
    dataset.ImageType = ["DERIVED", "SECONDARY", ""]
    dataset.FrameIncrementPointer = Tag("PageNumberVector")
    dataset.PageNumberVector = [1, 2]
    dataset.Rows = 3
    dataset.DisplayedAreaSelectionSequence = []
    dataset.StudyDate = ""
    dataset.PatientWeight = None
    dataset.TextValue = "long " * 20_000
    dataset.SimpleFrameList = [1, 2, 70_000]
    dataset.RealWorldValueSlope = 0.1
    item.GraphicData = [0.5, 1.25]
    item.ReferencedImageSequence = [Dataset()]
    dataset.GraphicObjectSequence = [item, Dataset()]
    dataset.add_new("PixelData", "OW", np.arange(9, dtype=np.uint16).tobytes())
    dataset.add_new("LUTData", "OB", b"odd")
    files = encoder.to_part10_each(dataset, NAMES)
    for (dataset.SOPClassUID, dataset.SOPInstanceUID), content in zip(NAMES, files, strict=True):
        assert content == by_pydicom(dataset) == encoder.to_part10(dataset)
        assert dcmread(io.BytesIO(content)).SOPInstanceUID == dataset.SOPInstanceUID
