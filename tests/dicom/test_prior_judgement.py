"""What an archive sent as an earlier radiograph: judged as the current one is, if it is one of the same patient."""

from __future__ import annotations

from typing import Any

import pytest

from cxr_node import judgement_text, pipeline
from cxr_node.domain import Reason
from cxr_node.outcome import Judgement, Rejected
from tests import builders
from tests.dicom.studies import CONFIG, case, source

NOW = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.5", "StudyDate": "20250601", "StudyTime": "101112"}
THEN = {"StudyInstanceUID": "1.2.826.0.1.3680043.10.9", "StudyDate": "20250301", "StudyTime": "111213"}
WHOSE = {"PatientID": "P-1", "IssuerOfPatientID": "HERE", "PatientBirthDate": "20200102"}


def judged(then: dict[str, Any], now: dict[str, Any] | None = None) -> Judgement | Rejected:
    current = source(1, **(WHOSE | NOW | (now or {})))
    return pipeline.judge_prior(source(8, **(WHOSE | THEN | then)), current, builders.FixedPredictor(), CONFIG)


def test_it_is_judged_by_the_same_profile_and_without_results() -> None:
    found = judged({})
    assert isinstance(found, Judgement)
    assert found.results == ()
    assert found.finding.identity == case("pneumonia").images[0].judgement.finding.identity
    assert judgement_text.dump(judgement_text.load_judgement(judgement_text.dump(found))) == judgement_text.dump(found)


def test_what_waited_while_the_node_was_updated_is_read() -> None:
    found = judged({})
    assert isinstance(found, Judgement)
    former = judgement_text.dump(found).replace('"pixel_digest":', '"pixel_sha256":')
    assert '"pixel_sha256":' in former
    assert judgement_text.load_judgement(former) == judgement_text.load_judgement(judgement_text.dump(found))


@pytest.mark.parametrize(
    "then",
    [
        {"IssuerOfPatientID": ""},
        {"PatientBirthDate": ""},
        {"StudyDate": "20250601", "StudyTime": "101111"},
        {"SpecificCharacterSet": "ISO_IR 192"},
    ],
)
def test_what_one_header_leaves_out_contradicts_nothing(then: dict[str, Any]) -> None:
    assert isinstance(judged(then), Judgement)


def test_a_patient_id_is_the_same_in_another_character_set() -> None:
    latin = {"PatientID": "MÜLLER", "SpecificCharacterSet": "ISO_IR 100"}
    assert isinstance(judged(latin, {"PatientID": "MÜLLER", "SpecificCharacterSet": "ISO_IR 192"}), Judgement)


@pytest.mark.parametrize(
    "then",
    [
        {"PatientID": "P-2"},
        {"PatientID": "P-1\\P-2"},
        {"IssuerOfPatientID": "THERE"},
        {"PatientBirthDate": "20200103"},
        {"StudyInstanceUID": NOW["StudyInstanceUID"]},
        {"StudyDate": "20250602"},
        {"StudyDate": ""},
        {"StudyDate": "20250601", "StudyTime": "101112"},
        {"StudyDate": "20250601", "StudyTime": ""},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_another_patient_s_or_a_later_one_is_not_judged(then: dict[str, Any]) -> None:
    found = judged(then)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.IDENTITY_CONFLICT
    assert "P-" not in found.sentence


def test_the_admission_rules_hold_for_it() -> None:
    found = judged({"ViewPosition": "LL"})
    assert isinstance(found, Rejected)
    assert found.reason is Reason.NOT_FRONTAL
    found = judged({"BodyPartExamined": "HAND"})
    assert isinstance(found, Rejected)
    assert found.reason is Reason.NOT_CHEST


def test_what_is_no_dicom_is_refused() -> None:
    found = pipeline.judge_prior(b"nothing", source(1, **WHOSE), builders.FixedPredictor(), CONFIG)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.UNREADABLE_HEADER
