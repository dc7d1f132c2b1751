"""How old the patient was: every form in which headers tell it, and what they say where they do not know it."""

from __future__ import annotations

from typing import Any

import pytest

from cxr_node import pipeline
from cxr_node.config.schema import Admission, AgePolicy
from cxr_node.dicom.read import admission, age, header
from cxr_node.domain import Precedent, Radiograph, Reason
from tests import builders
from tests.builders import part10, radiograph

POPULATION = (1.0, 5.0)
DATES = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"))
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")


def source(patient_age: str | None, born: str | None, **overrides: Any) -> header.Source:
    told = {"PatientAge": patient_age, "PatientBirthDate": born, **overrides}
    found = header.read(part10(radiograph(**told)))
    assert isinstance(found, header.Source)
    return found


def words(of: header.Source) -> list[str]:
    return [f"{found.words} from {found.place}" for found in age.evidence(of.text)]


def judged(of: header.Source, policy: AgePolicy = AgePolicy.ENFORCE) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Sentence of the refusal, or "", remarks and cautions."""
    rules = Admission(age_policy=policy)
    refused = admission.check_header(of, POPULATION, rules, Precedent())
    assert refused is None or refused.reason is Reason.AGE_OUTSIDE_POPULATION
    said, cautions = (tell(of, POPULATION, rules) for tell in (admission.remarks, admission.cautions))
    assert all(len(caution) <= 60 for caution in cautions)
    return (refused.sentence if refused else "", said, cautions)


@pytest.mark.parametrize(
    ("patient_age", "born", "expected"),
    [
        ("999Y", "19500101", ["74 years from Patient's Birth Date"]),
        ("998Y", "19500101", ["74 years from Patient's Birth Date"]),
        ("999M", "19500101", ["83 years"]),
        ("000Y", "20210105", ["3 years from Patient's Birth Date"]),
        ("000D", "20210105", ["3 years from Patient's Birth Date"]),
        ("000M", "19500101", ["74 years from Patient's Birth Date"]),
        ("000D", "20240601", ["0 days from Patient's Age", "0 days from Patient's Birth Date"]),
        ("000Y", None, ["0 years from Patient's Age"]),
        ("003Y", "19000101", ["3 years from Patient's Age"]),
        ("003Y", "00010101", ["3 years from Patient's Age"]),
        ("003Y", "18991230", ["3 years from Patient's Age"]),
        ("003Y", "18581117", ["3 years from Patient's Age"]),
        ("003Y", "99991231", ["3 years from Patient's Age"]),
        ("003Y", "11111111", ["3 years from Patient's Age"]),
        (None, "19000101", []),
        (None, "20250101", []),
        ("", "20240529", ["3 days from Patient's Birth Date"]),
        ("", "20240501", ["1 month from Patient's Birth Date"]),
        ("", "20230115", ["16 months from Patient's Birth Date"]),
        ("3Y", None, ["3 years from Patient's Age"]),
        ("03y", None, ["3 years from Patient's Age"]),
        ("3 years", None, ["3 years from Patient's Age"]),
        ("003D", None, ["3 days from Patient's Age"]),
        ("001W", None, ["1 week from Patient's Age"]),
        ("62", None, []),
        ("UNKN", None, []),
    ],
)
def test_evidence(patient_age: str | None, born: str | None, expected: list[str]) -> None:
    found = words(source(patient_age, born))
    if patient_age == "999M":
        assert found[0] == "999 months from Patient's Age"
    else:
        assert found == expected


@pytest.mark.parametrize(
    "born",
    [
        "1950.06.01", "1950-06-01", "1950/06/01", "1950 06 01", "01.06.1950", "1/6/1950", "19500601120000", "1950",
        "195006", "19500600", "19500000", "19500601\\19990101",
    ],
)  # fmt: skip
def test_birth_dates_as_they_are_met(born: str) -> None:
    """Old style with dots (PS3.5 6.2, ACR-NEMA 2), other marks, a time behind it, only the year."""
    assert words(source(None, born))[0] in ("74 years from Patient's Birth Date", "73 years from Patient's Birth Date")


@pytest.mark.parametrize("born", ["19501301", "19500230", "195", "1950060", "UNKNOWN", "00000000", "........"])
def test_what_is_no_date_is_none(born: str) -> None:
    assert words(source(None, born)) == []


@pytest.mark.parametrize(
    "dates",
    [
        {"SeriesDate": "20240601"},
        {"AcquisitionDate": "2024.06.01"},
        {"ContentDate": "20240601"},
        {"AcquisitionDateTime": "20240601101500.000+0100"},
        {"PerformedProcedureStepStartDate": "20240601"},
        {"InstanceCreationDate": "20240601"},
        {"StudyDate": "19000101", "ContentDate": "20240601"},
        {"StudyDate": "00010101", "ContentDate": "20240601"},
        {"StudyDate": "garbage", "ContentDate": "20240601"},
    ],
)
def test_without_study_date_the_next_nearest_counts(dates: dict[str, str]) -> None:
    assert words(source("", "19500101", **{**DATES, **dates})) == ["74 years from Patient's Birth Date"]


def test_without_any_date_the_age_is_not_known() -> None:
    refused, said, cautions = judged(source("", "19500101", **DATES))
    assert not refused
    assert "age is not known" in said[0]
    assert cautions == ("Age not known: made for 1 to 5 years.",)


@pytest.mark.parametrize(
    ("patient_age", "born", "contradicts"),
    [
        ("003Y", "20210203", False),
        ("003Y", "20220501", False),  # just two: within a year of what the age can mean
        ("003Y", "20220901", True),
        ("003Y", "19500101", True),
        ("004Y", "20190801", False),  # 4.8
        ("004Y", "20180401", True),  # 6.2
        ("018M", "20220215", False),
        ("003D", "20240529", False),
        ("003D", "20240510", False),  # three weeks
        ("003D", "20230710", True),  # eleven months
        ("003M", "20240301", False),
        ("003M", "20230401", True),
        ("999Y", "19500101", False),
        ("003Y", "19000101", False),
        ("003Y", None, False),
    ],
)
def test_contradictions_are_measured_by_how_old_the_patient_is(
    patient_age: str, born: str | None, contradicts: bool
) -> None:
    assert (age.contradiction(source(patient_age, born).text) is not None) is contradicts


def test_where_any_evidence_says_outside_it_is_refused_and_both_are_named() -> None:
    refused, _, _ = judged(source("003Y", "19500101"))
    assert "3 years from Patient's Age, but 74 years from Patient's Birth Date." in refused
    refused, _, _ = judged(source("064Y", "20210203"))
    assert "64 years from Patient's Age, but 3 years from Patient's Birth Date." in refused
    refused, _, _ = judged(source("005Y", "20180401"))  # six by now
    assert "6 years from Patient's Birth Date" in refused


@pytest.mark.parametrize(
    ("patient_age", "born", "named"),
    [
        ("003D", None, "3 days, from Patient's Age"),
        ("064Y", None, "64 years, from Patient's Age"),
        ("999Y", "19500101", "74 years, from Patient's Birth Date"),
        ("074Y", "19500101", "74 years, from Patient's Age and Patient's Birth Date"),
        (None, "1950.01.01", "74 years, from Patient's Birth Date"),
    ],
)
def test_a_refusal_names_the_age_and_where_it_was_read_but_no_birth_date(
    patient_age: str | None, born: str | None, named: str
) -> None:
    refused, _, _ = judged(source(patient_age, born))
    assert refused == f"The patient's age is outside the classifier's population (1 to 5 years): {named}."


def test_under_warn_remark_and_picture_name_the_age() -> None:
    refused, said, cautions = judged(source("999Y", "19500101"), AgePolicy.WARN)
    assert not refused
    assert "outside the population" in said[0]
    assert "74 years, from Patient's Birth Date" in said[0]
    assert cautions == ("Age 74 years: made for 1 to 5 years.",)


def test_contradictions_within_the_population_are_remarks() -> None:
    refused, said, cautions = judged(source("001Y", "20190103"))
    assert not refused
    assert said == (
        "The header contradicts itself about the patient's age: "
        "1 year from Patient's Age, but 5 years from Patient's Birth Date.",
    )
    assert cautions == ("Age contradictory: 1 year or 5 years.",)
    refused, said, _ = judged(source("000Y", "20210105"))
    assert not refused
    assert "0 years from Patient's Age, but 3 years from Patient's Birth Date" in said[0]
    assert judged(source("003Y", "20210203")) == ("", (), ())


def test_what_must_stand_in_the_picture_comes_with_the_radiograph() -> None:
    admitted = pipeline.admit(source(None, None), builders.profile(), Admission(), Precedent())
    assert isinstance(admitted, Radiograph)
    assert admitted.cautions == ("Age not known: made for 1 to 5 years.",)
    assert "age is not known" in admitted.remarks[0]
