"""The note about an image that was not analysed: only where it may be made, and never taken for a result."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from cxr_node import pipeline
from cxr_node.config import loader, schema
from cxr_node.dicom.verify import check
from cxr_node.dicom.verify.rules import Rule
from cxr_node.domain import Origin, Precedent
from cxr_node.errors import UnsoundResultError
from cxr_node.outcome import Rejected, Reported
from cxr_node.result_kinds import SHAPES, ResultKind
from tests import builders
from tests.dicom.contexts import RECEIVED
from tests.dicom.mutations import broken

ORIGIN = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=RECEIVED)
ADULT: dict[str, Any] = {"PatientAge": "048Y", "PatientBirthDate": ""}
LATERAL: dict[str, Any] = {"ViewPosition": "LL"}


def settings(*send: str) -> schema.Config:
    wants = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": list(send), "report_per": "image"}
    return loader.parse({"spool": {"path": "."}, "destinations": [wants]})


WANTED = settings("report", "not-analysed")


def refused(precedent: Precedent = pipeline.NO_PRECEDENT, **overrides: Any) -> Rejected:
    content = builders.part10(builders.radiograph(**overrides))
    outcome = pipeline.process(content, ORIGIN, builders.FixedPredictor(), WANTED, precedent)
    assert isinstance(outcome, Rejected), outcome
    return outcome


def the_note(**overrides: Any) -> Dataset:
    (artifact,) = refused(**overrides).artifacts
    return dcmread(io.BytesIO(artifact.content))


@pytest.mark.parametrize(
    "overrides",
    [
        ADULT,
        LATERAL,
        {"BodyPartExamined": "HAND", "AnatomicRegionSequence": None},
        {"PixelData": None},
        {"stored": builders.chest(100, 100)},
        {"stored": builders.chest() * 0},
        LATERAL | {"SOPClassUID": SecondaryCaptureImageStorage},
    ],
)
def test_a_radiograph_that_is_refused_gets_one_line(overrides: dict[str, Any]) -> None:
    note, source = the_note(**overrides), builders.radiograph(**overrides)
    assert note.SeriesDescription == "AI: not analysed (research)"
    assert note.SeriesNumber == SHAPES[ResultKind.NOT_ANALYSED].series_number
    assert (note.StudyInstanceUID, note.PatientID) == (source.StudyInstanceUID, source.PatientID)
    (line,) = note.ContentSequence[-1].ContentSequence
    assert line.TextValue.startswith("AI: not analysed - ")
    assert refused(**overrides).sentence[1:].rstrip(".") in line.TextValue
    assert line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


STRANGER = Precedent(patient_key_of_study="0" * 64)


@pytest.mark.parametrize(
    ("overrides", "precedent"),
    [
        ({"PatientID": ""}, pipeline.NO_PRECEDENT),
        ({}, STRANGER),
        ({"PixelData": None}, STRANGER),  # refused before anybody asks whose it is
        ({"PixelData": None, "PatientID": ""}, pipeline.NO_PRECEDENT),
        ({"SOPClassUID": CTImageStorage, "Modality": "CT"}, pipeline.NO_PRECEDENT),
        ({"Modality": "MR"}, pipeline.NO_PRECEDENT),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, pipeline.NO_PRECEDENT),
        ({"ImageType": ["DERIVED", "PRIMARY", "BONE_SUPPRESSED"]}, pipeline.NO_PRECEDENT),
    ],
)
def test_none_where_the_patient_is_in_doubt_or_it_is_no_radiograph(
    overrides: dict[str, Any], precedent: Precedent
) -> None:
    assert refused(precedent, **overrides).artifacts == ()


def test_none_of_what_cannot_be_read_and_of_what_was_analysed() -> None:
    torn = pipeline.process(b"no DICOM", ORIGIN, builders.FixedPredictor(), WANTED)
    assert isinstance(torn, Rejected)
    assert torn.artifacts == ()
    judged = pipeline.process(builders.part10(builders.radiograph()), ORIGIN, builders.FixedPredictor(), WANTED)
    assert isinstance(judged, Reported)
    assert [artifact.kind for artifact in judged.artifacts] == [ResultKind.REPORT]


def test_off_by_default() -> None:
    content = builders.part10(builders.radiograph(**LATERAL))
    for unasked in (loader.parse({"spool": {"path": "."}}), settings("report", "measurements", "heatmap")):
        outcome = pipeline.process(content, ORIGIN, builders.FixedPredictor(), unasked)
        assert isinstance(outcome, Rejected)
        assert outcome.artifacts == ()


def test_a_note_that_comes_back_is_our_own_and_gets_none() -> None:
    (artifact,) = refused(**LATERAL).artifacts
    again = pipeline.process(artifact.content, ORIGIN, builders.FixedPredictor(), WANTED)
    assert isinstance(again, Rejected)
    assert (again.reason, again.artifacts) == ("own-result", ())


def test_the_same_refusal_gives_the_same_bytes_and_another_one_other_uids() -> None:
    assert refused(**LATERAL).artifacts == refused(**LATERAL).artifacts
    assert the_note(**LATERAL).SOPInstanceUID != the_note(**ADULT).SOPInstanceUID
    warned = settings("not-analysed").model_copy(update={"admission": schema.Admission(min_size_px=64)})
    content = builders.part10(builders.radiograph(**LATERAL))
    outcome = pipeline.process(content, ORIGIN, builders.FixedPredictor(), warned)
    assert isinstance(outcome, Rejected)
    assert outcome.artifacts[0].sop_instance_uid != refused(**LATERAL).artifacts[0].sop_instance_uid


def test_the_check_finds_nothing_in_a_sound_note() -> None:
    (artifact,) = refused(**LATERAL).artifacts
    source = builders.part10(builders.radiograph(**LATERAL))
    for files in ([("note", artifact.content)], [("note", artifact.content), ("source", source)]):
        checked = check.check_files(files)
        assert (checked.flaws, checked.results) == ((), 1)


def said(text: str) -> Callable[[Dataset], None]:
    def act(dataset: Dataset) -> None:
        dataset.ContentSequence[-1].ContentSequence[0].TextValue = text

    return act


def described(text: str) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, "SeriesDescription", text)


@pytest.mark.parametrize(
    ("act", "rule"),
    [
        (said("AI: no pneumonia detected. No answer was given. Research use only."), Rule.READS_NEGATIVE),
        (said("AI: not analysed - the lungs are normal. No answer was given. Research use only."), Rule.READS_NEGATIVE),
        (said("AI: PNEUMONIA SUSPECTED. Research use only."), Rule.READS_POSITIVE),
        (said("AI: not analysed - uncertain. No answer was given. Research use only."), Rule.VERDICT),
        (said("AI: the view is not frontal."), Rule.SUMMARY),
        (described("AI: no pneumonia detected (research)"), Rule.READS_NEGATIVE),
        (described("Chest PA"), Rule.DESCRIPTION),
        (lambda dataset: setattr(dataset, "SeriesNumber", 9100), Rule.ATTRIBUTE),
        (lambda dataset: setattr(dataset, "VerificationFlag", "VERIFIED"), Rule.STATUS),
        (lambda dataset: setattr(dataset, "PatientID", "SOMEBODY"), Rule.PATIENT_AND_STUDY),
        (lambda dataset: dataset.ContentSequence.pop(), Rule.SUMMARY),
    ],
)
def test_a_broken_note_is_told(act: Callable[[Dataset], object], rule: Rule) -> None:
    (artifact,) = refused(**LATERAL).artifacts
    source = builders.part10(builders.radiograph(**LATERAL))
    files = [("note", broken(artifact, act).content), ("source", source)]
    assert rule in {flaw.rule for flaw in check.check_files(files).flaws}


def test_no_unsound_note_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that reads as a result, whoever wrote it."""
    monkeypatch.setattr("cxr_node.dicom.words.wording.not_analysed", lambda rejected: "AI: no pneumonia detected")
    with pytest.raises(UnsoundResultError, match="reads-negative"):
        refused(**LATERAL)
