"""Identity, header and bytes that all result objects share; asserted after a way through bytes."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr_node import pipeline
from cxr_node.dicom.part10 import IMPLEMENTATION_CLASS_UID, PRODUCT
from cxr_node.dicom.results.context import Context
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import DICOM_KINDS, SHAPES, ResultKind
from tests import builders
from tests.builders import item
from tests.dicom.contexts import CASES, MADE, context, of_bytes

ROOT = Path(__file__).parent.parent.parent
BUILD: Mapping[ResultKind, Callable[[Context], Artifact | None]] = pipeline.BUILDERS
RESULTS = [*BUILD]
"""Every kind that an analysed radiograph may have."""
SRS = (ResultKind.REPORT, ResultKind.MEASUREMENTS)


def made(kind: ResultKind, of: Context) -> FileDataset:
    artifact = BUILD[kind](of)
    assert artifact is not None
    return dcmread(io.BytesIO(artifact.content))


def digests() -> str:
    """Of every object of every case; run in other processes too."""
    whole = hashlib.sha256()
    for kind, case in MADE:
        whole.update(BUILD[kind](context(case)).content)
    return whole.hexdigest()


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("case", CASES)
def test_what_does_not_apply_is_not_made(kind: ResultKind, case: str) -> None:
    assert (BUILD[kind](context(case)) is not None) == ((kind, case) in MADE)


@pytest.mark.whole
def test_the_same_bytes_in_every_process() -> None:
    program = "from tests.dicom.test_context import digests; print(digests())"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}  # ours is another seed, at each run
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == digests()


@pytest.mark.parametrize("kind", RESULTS)
def test_part10_is_ours_and_explicit_little_endian(kind: ResultKind) -> None:
    artifact = BUILD[kind](context())
    assert artifact.content[:132] == bytes(128) + b"DICM"
    dataset = dcmread(io.BytesIO(artifact.content))
    meta = dataset.file_meta
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID == dataset.InstanceCreatorUID
    assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == artifact.sop_instance_uid
    assert meta.MediaStorageSOPClassUID == dataset.SOPClassUID == artifact.sop_class_uid
    assert artifact.kind is kind


def test_objects_have_uids_and_series_of_their_own() -> None:
    first = context()
    second = context(dataset=builders.radiograph(SOPInstanceUID="1.2.3.9"))  # same study, same series
    uids = {of.instance_uid(kind) for of in (first, second) for kind in RESULTS}
    series = {of.series_uid(kind) for of in (first, second) for kind in RESULTS}
    assert len(uids) == len(series) == 2 * len(RESULTS)
    assert not uids & series
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in uids | series)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, settings=c.settings.model_copy(update={"installation_id": "other"})),
        lambda c: replace(c, radiograph=replace(c.radiograph, pixel_digest="00" * 32)),
        lambda c: _with_identity(c, weights_sha256="00" * 32),
        lambda c: _with_identity(c, config_sha256="00" * 32),
        lambda c: _with_identity(c, version="1.0.1"),
        lambda c: _with_identity(c, calibration="another"),
        lambda c: _with_identity(c, operating_point=replace(c.finding.identity.operating_point, report_at=0.8)),
        lambda c: context(dataset=builders.radiograph(SOPInstanceUID="1.2.3")),
    ],
)
def test_whatever_changes_the_answer_changes_its_uids(change: Callable[[Context], Context]) -> None:
    before, after = context(), change(context())
    for kind in DICOM_KINDS:
        assert before.instance_uid(kind) != after.instance_uid(kind)
        assert before.series_uid(kind) != after.series_uid(kind)


def _with_identity(of: Context, **changes: Any) -> Context:
    return replace(of, finding=replace(of.finding, identity=replace(of.finding.identity, **changes)))


def test_who_sent_it_and_when_do_not_change_uids() -> None:
    of = context()
    later = replace(
        of, origin=replace(of.origin, calling_ae_title="OTHER", received_at=of.origin.received_at + timedelta(days=9))
    )
    assert [of.instance_uid(kind) for kind in DICOM_KINDS] == [later.instance_uid(kind) for kind in DICOM_KINDS]


def test_new_weights_are_a_new_device() -> None:
    assert context().device_uid != _with_identity(context(), weights_sha256="00" * 32).device_uid
    assert context().device_uid == context(case="normal").device_uid


CARRIED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "SpecificCharacterSet",
)  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_patient_and_study_are_the_source_s(kind: ResultKind, syntax: str) -> None:
    source = builders.radiograph()
    result = made(kind, of_bytes(builders.part10(source, syntax)))
    assert {keyword: result.get(keyword) for keyword in CARRIED} == {
        keyword: source.get(keyword) for keyword in CARRIED
    }
    assert result.SeriesNumber == SHAPES[kind].series_number
    assert result.Modality == (SHAPES[kind].modality or "DX")  # of a picture its source's
    assert result.ContentQualification == "RESEARCH"


def named(declared: str | None, sent: bytes) -> bytes:
    """Radiograph of a patient whose name is these bytes."""
    placeholder = b"@" * (len(sent) + len(sent) % 2)
    content = builders.part10(builders.radiograph(SpecificCharacterSet=declared, PatientName=placeholder.decode()))
    return content.replace(placeholder, sent.ljust(len(placeholder)))


NAMES = {
    "Latin-1": ("ISO_IR 100", "Müller^Zoë".encode("latin-1")),
    "UTF-8": ("ISO_IR 192", "Ωμέγα^Ж李".encode()),
    "Greek": ("ISO_IR 126", "Διονυσιος^Άννα".encode("iso8859-7")),
    "Cyrillic": ("ISO_IR 144", "Люксембург^Анна".encode("iso8859-5")),
    "Arabic": ("ISO_IR 127", "قباني^لنزار".encode("iso8859-6")),
    "Japanese": (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "undeclared": (None, b"M\xfcller^Zo\xeb"),
    "wrongly declared": ("ISO_IR 192", b"M\xfcller^Zo\xeb"),
}


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("name", NAMES)
def test_names_arrive_in_the_bytes_they_were_sent_in(kind: ResultKind, name: str) -> None:
    declared, sent = NAMES[name]
    result = made(kind, of_bytes(named(declared, sent)))
    element = result.get_item("PatientName")
    assert element.value.rstrip(b" ") == sent
    assert ("SpecificCharacterSet" in result) == (declared is not None)
    if declared is not None:
        assert "\\".join(charsets_of(result)) == declared


def charsets_of(dataset: Dataset) -> list[str]:
    declared = dataset.SpecificCharacterSet
    return [declared] if isinstance(declared, str) else list(declared)


@pytest.mark.parametrize("kind", RESULTS)
def test_descriptions_arrive_in_the_bytes_they_were_sent_in(kind: ResultKind) -> None:
    content = builders.part10(builders.radiograph(SpecificCharacterSet=None, StudyDescription="R@ntgen Thorax"))
    result = made(kind, of_bytes(content.replace(b"R@ntgen", b"R\xf6ntgen")))
    assert result.get_item("StudyDescription").value == b"R\xf6ntgen Thorax"


@pytest.mark.parametrize("kind", RESULTS)
def test_a_source_with_nearly_nothing(kind: ResultKind) -> None:
    source = builders.radiograph()
    kept = {
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "Rows",
        "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
        "PhotometricInterpretation", "PixelData",
    }  # fmt: skip
    for keyword in [element.keyword for element in source if element.keyword not in kept]:
        delattr(source, keyword)
    result = made(kind, context(dataset=source))
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber", "StudyID"):
        assert keyword in result
        assert not result[keyword].value
    assert "SpecificCharacterSet" not in result
    assert len(result.ContributingEquipmentSequence) == 1


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientAge", "62", None),
        ("PatientSex", "female", ""),
        ("StudyDate", "2024.6.1", ""),
        ("StudyTime", "10:15:00", ""),
        ("TimezoneOffsetFromUTC", "UTC+1", "+0000"),  # of the zone that is configured
        ("StudyID", "s" * 20, "s" * 20),  # too long for SH, but an identity is never cut
    ],
)
@pytest.mark.filterwarnings("ignore:The value length:UserWarning", "ignore:Invalid value:UserWarning")
def test_values_that_their_vr_forbids_do_not_spoil_the_result(keyword: str, value: str, kept: str | None) -> None:
    source = builders.radiograph()
    source.add_new(keyword, "LO", value)  # the VR in the file does not matter; some senders are wrong there too
    result = made(ResultKind.REPORT, context(dataset=source))
    assert result.get(keyword) == kept


@pytest.mark.parametrize("kind", RESULTS)
def test_person_names_in_sequences_neither_break_nor_pass(kind: ResultKind) -> None:
    source = builders.radiograph(
        RequestAttributesSequence=[item(RequestedProcedureID="RP1", RequestingPhysician="Secret^Requester")],
        ReferringPhysicianIdentificationSequence=[item(InstitutionName="Secret Ward")],
        OtherPatientIDsSequence=[
            item(PatientID="MRN-2", IssuerOfPatientID="OTHER", TypeOfPatientID="TEXT", OtherPatientNames="Secret^Alias")
        ],
    )
    artifact = BUILD[kind](context(dataset=source))
    assert b"Secret" not in artifact.content
    result = dcmread(io.BytesIO(artifact.content))
    assert result.OtherPatientIDsSequence[0].PatientID == "MRN-2"


@pytest.mark.parametrize("kind", SRS)
def test_orders_are_referred_to(kind: ResultKind) -> None:
    code = item(CodeValue="RPCHEST", CodingSchemeDesignator="99LOCAL", CodeMeaning="Röntgen Thorax")
    source = builders.radiograph(
        IssuerOfAccessionNumberSequence=[item(LocalNamespaceEntityID="RIS")],
        RequestAttributesSequence=[
            item(
                RequestedProcedureID="RP1",
                RequestedProcedureDescription="Thorax Röntgen",
                RequestedProcedureCodeSequence=[code],
            )
        ],
    )
    result = made(kind, context(dataset=source))
    request = result.ReferencedRequestSequence[0]
    assert request.StudyInstanceUID == source.StudyInstanceUID
    assert request.AccessionNumber == source.AccessionNumber
    assert request.RequestedProcedureID == "RP1"
    assert request.RequestedProcedureDescription == "Thorax Röntgen"
    assert request.RequestedProcedureCodeSequence[0].CodeMeaning == "Röntgen Thorax"
    assert request.ReferencedStudySequence == Sequence()
    assert request.FillerOrderNumberImagingServiceRequest in ("", None)
    assert result.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
    assert "ReferencedRequestSequence" not in made(kind, context())


@pytest.mark.parametrize("kind", SRS)
def test_srs_are_preliminary_unverified_and_name_all_evidence(kind: ResultKind) -> None:
    of = context()
    result = made(kind, of)
    assert (result.CompletionFlag, result.VerificationFlag, result.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    evidence = result.CurrentRequestedProcedureEvidenceSequence[0]
    named = {
        (series.SeriesInstanceUID, member.ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
        for member in series.ReferencedSOPSequence
    }
    ref = of.source.ref
    picture = of.series_uid(ResultKind.HEATMAP), of.instance_uid(ResultKind.HEATMAP)
    assert named == {(ref.series_instance_uid, ref.sop_instance_uid), picture}


@pytest.mark.parametrize("kind", SRS)
def test_srs_refer_to_no_object_that_is_not_made(kind: ResultKind) -> None:
    alone = replace(context(), kinds=frozenset({kind}))
    for absent in (ResultKind.HEATMAP, *(other for other in SRS if other is not kind)):
        content = BUILD[kind](alone).content
        assert alone.instance_uid(absent).encode() not in content
        assert str(SHAPES[absent].series_number).encode() not in content.split(b"Findings", 1)[-1]
    assert alone.instance_uid(kind) != context().instance_uid(kind)
    more = replace(context(), kinds=frozenset(DICOM_KINDS))
    assert BUILD[kind](more) == BUILD[kind](context())  # who prints a page gets no second report


@pytest.mark.parametrize(
    ("declared", "date", "time", "contributed"),
    [
        (None, "20250102", "220405.678901", "20250102220405.678901+0000"),
        ("+0530", "20250103", "033405.678901", "20250103033405.678901+0530"),
        ("-0800", "20250102", "140405.678901", "20250102140405.678901-0800"),
        ("+9999", "20250102", "220405.678901", "20250102220405.678901+0000"),
        ("-0000", "20250102", "220405.678901", "20250102220405.678901+0000"),  # PS3.5 6.2: no such offset
    ],
)
@pytest.mark.parametrize("kind", RESULTS)
def test_times_are_those_of_the_source_s_zone(
    kind: ResultKind, declared: str | None, date: str, time: str, contributed: str
) -> None:
    result = made(kind, context(dataset=builders.radiograph(TimezoneOffsetFromUTC=declared)))
    made_at = "PresentationCreation" if kind is ResultKind.PRESENTATION_STATE else "Content"
    assert (result[f"{made_at}Date"].value, result[f"{made_at}Time"].value) == (date, time)
    assert result.ContributingEquipmentSequence[-1].ContributionDateTime == contributed
    assert (result.SeriesDate, result.SeriesTime) == (date, time)
    assert result.TimezoneOffsetFromUTC == contributed[-5:]


@pytest.mark.parametrize("kind", RESULTS)
def test_contributing_equipment_is_the_modality_and_we(kind: ResultKind) -> None:
    of = context(manufacturer="Müller GmbH", installation_id="site 7")
    acquisition, ours = made(kind, of).ContributingEquipmentSequence
    assert acquisition.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (acquisition.Manufacturer, acquisition.ManufacturerModelName) == ("Example X-Ray Works", "Phantom 1")
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert ours.ManufacturerModelName.startswith(PRODUCT)
    assert ours.Manufacturer == "Muller GmbH"
    assert ours.DeviceSerialNumber == "site 7"
    assert ours.DeviceUID == of.device_uid


def test_air_table_6_5_3_1() -> None:
    """What the template rows say equals the attributes (IHE RAD AIR, table 6.5.3.1-1)."""
    result = made(ResultKind.MEASUREMENTS, context())
    ours = result.ContributingEquipmentSequence[-1]
    said = {
        node.ConceptNameCodeSequence[0].CodeValue: node.get("TextValue") or node.get("UID")
        for node in walk(result)
        if node.ValueType in ("TEXT", "UIDREF")
    }
    assert ours.Manufacturer == said["121014"] == said["122405"] == result.Manufacturer
    assert ours.ManufacturerModelName == said["121015"] == said["111001"] == result.ManufacturerModelName
    assert ours.SoftwareVersions == said["111003"] == result.SoftwareVersions[-1]
    assert ours.DeviceUID == said["121012"]
    assert ours.DeviceSerialNumber == said["121016"] == result.DeviceSerialNumber


def walk(node: Dataset) -> list[Dataset]:
    children = node.get("ContentSequence", [])
    return [*children, *(deeper for child in children for deeper in walk(child))]


@pytest.mark.parametrize(("kind", "case"), MADE)
def test_long_names_of_profiles_and_makers_still_fit(kind: ResultKind, case: str) -> None:
    of = _with_identity(context(case, manufacturer="m" * 200, installation_id="i" * 200), profile="p" * 200)
    result = made(kind, of)
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"):
        assert len(result[keyword].value) <= 64
    assert all(len(version) <= 64 for version in result.SoftwareVersions)


@pytest.mark.parametrize("kind", RESULTS)
def test_type_1_equipment_is_never_empty(kind: ResultKind) -> None:
    result = made(kind, context(manufacturer="", installation_id=""))
    assert (result.Manufacturer, result.DeviceSerialNumber) == ("unknown", "unknown")
