"""What of a header belongs to a result's identity: each attribute changed alone, and each read watched.

On the code before, a corrected name, order or study gave other bytes under the UIDs of the first results.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.config import loader
from cxr_node.dicom.results import copied_attributes
from cxr_node.domain import NO_PRECEDENT, Origin, Precedent, ResultRef
from cxr_node.outcome import Reported
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests import builders
from tests.builders import item
from tests.dicom import contexts
from tests.dicom.contexts import RECEIVED

ORIGIN = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=RECEIVED)
RULES = loader.parse(
    {
        "spool": {"path": "."},
        "results": {"max_heatmap_px": 1024},
        "destinations": [
            {
                "name": "a",
                "address": "A@127.0.0.1:104",
                "send": [kind.value for kind in DICOM_KINDS],
                "report_per": "image",
            }
        ],
    }
)
OWN_UID = re.compile(rb"\b2\.25\.\d{30,39}\b\0?")
Made = dict[tuple[str, str], bytes]


def results(content: bytes | None = None, precedent: Precedent = NO_PRECEDENT, **changes: Any) -> Made:
    """Result objects of one radiograph by kind and SOP class, every SOP Class."""
    content = content or builders.part10(builders.radiograph(**ORDERED | changes))
    outcome = pipeline.process(content, ORIGIN, builders.FixedPredictor(probability=0.93), RULES, precedent)
    assert isinstance(outcome, Reported), outcome
    return {
        (choice.kind, choice.sop_class_uid): choice.content
        for artifact in outcome.artifacts
        for choice in artifact.sop_class_choices
    }


def order(number: str) -> list[Dataset]:
    return [item(RequestedProcedureID=number, ScheduledProcedureStepID="1")]


def code(value: str) -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator="99LOCAL", CodeMeaning=f"Chest {value}")]


ORDERED: dict[str, Any] = {"RequestAttributesSequence": order("R1"), "ProcedureCodeSequence": code("1")}
CARRIED: dict[str, Any] = {
    "PatientName": "Right^Name",
    "PatientID": "REAL-1",
    "IssuerOfPatientID": "ANOTHER WARD",
    "PatientBirthDate": "20210204",
    "PatientSex": "M",
    "PatientAge": "004Y",
    "OtherPatientIDsSequence": [item(PatientID="OLD-1", IssuerOfPatientID="WARD", TypeOfPatientID="TEXT")],
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77.2.99",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77.3.99",
    "StudyID": "S2",
    "StudyDate": "20240602",
    "StudyTime": "111500",
    "StudyDescription": "Chest AP",
    "AccessionNumber": "NEW1",
    "IssuerOfAccessionNumberSequence": [item(LocalNamespaceEntityID="RIS")],
    "ReferringPhysicianName": "Another^Doctor",
    "TimezoneOffsetFromUTC": "+0530",
    "SpecificCharacterSet": "ISO_IR 192",
    "RequestAttributesSequence": order("R2"),
    "ProcedureCodeSequence": code("2"),
    "Manufacturer": "Other Works",
    "ManufacturerModelName": "Phantom 2",
    "DeviceSerialNumber": "0002",
    "SoftwareVersions": "2.0",
    "InstitutionName": "Other Hospital",
    "StationName": "XR2",
    "PatientOrientation": ["R", "F"],
    "LossyImageCompression": "01",
    "ImagerPixelSpacing": ["0.5", "0.25"],  # pixels of another shape
    "PixelSpacing": ["0.11", "0.11"],  # pixels of another size: a segmentation says it
    "BodyPartExamined": None,  # with the next two: a remark
    "Modality": "CR",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "RescaleType": "HU",
}
"""What arrives in new results, or changes what they say."""
ALONE: dict[str, dict[str, Any]] = {
    "BodyPartExamined": {
        "BodyPartExamined": None, "AnatomicRegionSequence": None, "SeriesDescription": "x", "StudyDescription": "x",
    },
    "ViewPosition": {
        "ViewPosition": "AP", "ViewCodeSequence": None, "SeriesDescription": "x",
    },
    "RescaleType": {"RescaleType": "HU", "RescaleSlope": "1", "RescaleIntercept": "0"},
    "SOPClassUID": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "PresentationIntentType": None},
}  # fmt: skip
"""Changes that need company to be valid, or to matter."""
IRRELEVANT: dict[str, Any] = {
    "SeriesNumber": "7",
    "SeriesDescription": "Chest PA, second console",
    "InstanceNumber": "3",
    "AcquisitionDate": "20240602",
    "AcquisitionTime": "090000",
    "ContentDate": "20240603",
    "ContentTime": "080000",
    "SeriesDate": "20240601",
    "KVP": "70",
    "ExposureTime": "6",
    "BodyPartThickness": "120",
    "PatientComments": "seen by the nurse",
    "PatientWeight": "14.5",
    "MedicalAlerts": "none",
    "StudyComments": "a second look",
    "ImageComments": "good inspiration",
    "OperatorsName": "Tech^One",
    "PerformedProcedureStepID": "P9",
    "RetrieveAETitle": "ARCHIVE",
    "InstanceCreationTime": "120000",
    "DetectorID": "D4",
    "ImageLaterality": "B",
    "PatientIdentityRemoved": "NO",
    "ScheduledProcedureStepID": "9",
}
"""What no result says, so that its correction needs no new one; listed in docs/decisions/003."""


def uids(made: Made) -> set[bytes]:
    return {uid for content in made.values() for uid in OWN_UID.findall(content)}


def told(made: Made) -> dict[tuple[str, str], bytes]:
    """What objects say but for UIDs of ours."""
    return {key: OWN_UID.sub(b"", content) for key, content in made.items()}


@pytest.fixture(scope="module")
def first() -> Made:
    return results()


@pytest.fixture(scope="module")
def constant(first: Made) -> set[bytes]:
    """UIDs of the program and of the device."""
    return uids(first) & uids(results(content=builders.part10(builders.radiograph(2, builders.chest(bits=11)))))


@pytest.mark.parametrize("keyword", [*CARRIED, *(set(ALONE) - set(CARRIED))])
def test_a_corrected_attribute_gives_new_objects(keyword: str, first: Made, constant: set[bytes]) -> None:
    after = results(**ALONE.get(keyword, {keyword: CARRIED.get(keyword)}))
    assert told(first) != told(after), "nothing of it arrived"
    assert not (uids(first) & uids(after)) - constant, "an object of the first header has the same UID"


@pytest.mark.parametrize("keyword", IRRELEVANT)
def test_an_attribute_that_no_result_says_changes_no_byte(keyword: str, first: Made) -> None:
    assert results(**{keyword: IRRELEVANT[keyword]}) == first


def private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0011, "AN ARCHIVE", create=True)
    block.add_new(0x01, "LO", "stored twice")


def test_transport_changes_no_byte(first: Made) -> None:
    """Another lossless transfer syntax, private attributes, group lengths: results stay what they are."""
    dataset = builders.radiograph(**ORDERED)
    private(dataset)
    dataset.add_new(0x00100000, "UL", 1234)
    assert results(content=builders.part10(dataset)) == first
    for transfer_syntax_uid in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        other = builders.part10(builders.radiograph(**ORDERED), transfer_syntax_uid)
        assert results(content=other) == first, transfer_syntax_uid


class Watched(Dataset):
    """Tells which attributes are looked at."""

    seen: set[int] | None = None

    def _see(self, key: Any) -> None:
        if Watched.seen is not None and not isinstance(key, slice):
            Watched.seen.add(int(Tag(key)))

    def __getitem__(self, key: Any) -> Any:
        self._see(key)
        return super().__getitem__(key)

    def get_item(self, key: Any, **options: Any) -> Any:
        self._see(key)
        return super().get_item(key, **options)


@pytest.fixture
def watching() -> Iterator[Callable[[], set[int]]]:
    """Begin to watch, and return what was seen since the last call."""

    def seen() -> set[int]:
        found, Watched.seen = Watched.seen or set(), set()
        return found

    yield seen
    Watched.seen = None


@pytest.mark.parametrize("case", contexts.CASES)
def test_builders_read_nothing_that_identity_does_not_know(case: str, watching: Callable[[], set[int]]) -> None:
    """Whoever carries or reads one more attribute adds it to `identity`."""
    filled = {keyword: value for keyword, value in CARRIED.items() if value is not None} | IRRELEVANT
    context = contexts.context(case, builders.radiograph(**filled))
    watched = Watched(context.source.dataset)
    watched.file_meta = context.source.dataset.file_meta
    context = replace(context, source=replace(context.source, dataset=watched), kinds=frozenset(DICOM_KINDS))
    watching()
    copied_attributes.header_sha256(context.source, context.radiograph)
    known = watching()
    for build in pipeline.BUILDERS.values():
        build(replace(context))
    seen = watching()
    assert seen, "nothing was watched"
    assert not {f"{tag:08X}" for tag in seen - known}


def read(content: bytes) -> Dataset:
    return dcmread(io.BytesIO(content))


def earlier(made: Made) -> tuple[ResultRef, ...]:
    """The results of one version, as the ledger hands them on."""
    return tuple(
        ResultRef(
            kind=ResultKind(kind),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=str(header.SOPInstanceUID),
            series_instance_uid=str(header.SeriesInstanceUID),
        )
        for (kind, sop_class_uid), content in made.items()
        for header in [read(content)]
    )


def replaced(content: bytes) -> list[str]:
    header = read(content)
    return [
        str(document.ReferencedSOPInstanceUID)
        for study in header.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    ]


REPORTS = (ResultKind.REPORT, ResultKind.MEASUREMENTS)


def test_corrected_documents_name_those_they_replace_by_class(first: Made) -> None:
    precedent = Precedent(earlier_results=(earlier(first),))
    after = results(precedent=precedent, PatientName="Right^Name")
    for key, content in after.items():
        wanted = [str(read(first[key]).SOPInstanceUID)] if key[0] in REPORTS else []
        assert replaced(content) == wanted, key
    again = results(precedent=precedent, PatientName="Right^Name")
    assert again == after, "the same versions in the same order give the same bytes"


def test_a_document_names_every_version_before_it(first: Made) -> None:
    second = results(precedent=Precedent(earlier_results=(earlier(first),)), PatientName="Second^Name")
    versions = (earlier(first), earlier(second))
    third = results(precedent=Precedent(earlier_results=versions), PatientName="Third^Name")
    key = (ResultKind.REPORT, "1.2.840.10008.5.1.4.1.1.88.11")
    assert replaced(third[key]) == [str(read(made[key]).SOPInstanceUID) for made in (first, second)]


def test_a_version_that_came_before_replaces_nothing_anew(first: Made) -> None:
    """The first header again, or in another transfer syntax: its results are known, whatever came in between."""
    second = results(precedent=Precedent(earlier_results=(earlier(first),)), PatientName="Second^Name")
    versions = (earlier(first), earlier(second))
    assert results(precedent=Precedent(earlier_results=versions)) == first
    assert results(precedent=Precedent(earlier_results=versions), PatientName="Second^Name") == second
