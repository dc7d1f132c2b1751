"""An ORU^R01 is what HL7 2.5.1 asks for, says what was answered, and no row of it reads as another verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.parser import parse_message

from cxr_node.domain import Verdict
from cxr_node.messages import oru
from cxr_node.result_kinds import ResultKind
from tests.dicom import studies
from tests.dicom.test_context import NAMES
from tests.messages.studies import CONFIG, made

NASTY = "A|B^C&D~E\\F\r\nG\x0b\x1c\x00H\u2028I"


def rows(content: bytes, name: str) -> list[list[str]]:
    """Fields of each segment of that name; index 0 is the name, as in the standard's numbers (but of MSH)."""
    segments = content.decode("utf-8").rstrip("\r").split("\r")
    return [fields for fields in (segment.split("|") for segment in segments) if fields[0] == name]


def field(row: list[str], number: int) -> str:
    return row[number] if number < len(row) else ""


def message(*cases: str, laterals: int = 0) -> bytes:
    return made(studies.case(*cases, laterals=laterals))[ResultKind.HL7].content


def parsed(content: bytes) -> Message:
    """By hl7apy, strictly; of formatted text its begin: it takes every OBX-5 for an ST, of 199 characters."""
    segments = content.decode("utf-8").split("\r")
    short = [re.sub(r"^(OBX\|\d+\|FT\|[^|]*\|[^|]*\|)([^|\\]{0,150})[^|]*", r"\1\2", segment) for segment in segments]
    found = parse_message("\r".join(short), validation_level=VALIDATION_LEVEL.STRICT)
    assert found.validate()
    return found


SETS: dict[str, tuple[tuple[str, ...], int, Verdict]] = {
    "positive": (("pneumonia",), 0, Verdict.POSITIVE),
    "negative": (("normal",), 0, Verdict.NEGATIVE),
    "between": (("between",), 0, Verdict.INDETERMINATE),
    "views": (("views",), 0, Verdict.INDETERMINATE),
    "unlike": (("unlike", "normal"), 0, Verdict.INDETERMINATE),
    "two": (("normal", "pneumonia"), 1, Verdict.POSITIVE),
    "negative-and-lateral": (("normal",), 1, Verdict.NEGATIVE),
    "none-analysed": ((), 2, Verdict.INDETERMINATE),
}


@pytest.mark.parametrize("name", SETS)
def test_hl7apy_finds_every_message_valid(name: str) -> None:
    cases, laterals, _ = SETS[name]
    found = parsed(message(*cases, laterals=laterals))
    assert found.msh.msh_9.value == "ORU^R01^ORU_R01"
    assert found.msh.msh_12.value == "2.5.1"
    order = found.oru_r01_patient_result.oru_r01_order_observation
    assert order.obr.obr_25.value == "P"
    assert len(order.oru_r01_observation) >= 7


@pytest.mark.parametrize("name", SETS)
def test_a_reader_of_one_row_alone_never_takes_a_doubt_for_a_no(name: str) -> None:
    """OBX-5 and OBX-8 of the coded and numeric rows, each read by itself."""
    cases, laterals, verdict = SETS[name]
    found = rows(message(*cases, laterals=laterals), "OBX")
    negative = {"272519000", "NEGATIVE", "N", "NEG", "Absent"}
    for row in found:
        said = {*field(row, 5).split("^"), field(row, 8)}
        if verdict is not Verdict.NEGATIVE:
            assert not said & negative, row
    first = found[0]
    assert field(first, 8) == oru.FLAGS[verdict] and field(first, 8) not in ("", "N")
    assert [field(row, 8) for row in found if field(row, 2) == "NM"] in ([], [oru.FLAGS[verdict]])
    assert {field(row, 11) for row in found[1:]} == {"P"}
    assert field(first, 11) == ("X" if not cases else "P")


@pytest.mark.parametrize("name", SETS)
def test_rows_can_be_told_apart_by_their_concept_and_sub_id(name: str) -> None:
    cases, laterals, _ = SETS[name]
    keys = [(field(row, 3), field(row, 4)) for row in rows(message(*cases, laterals=laterals), "OBX")]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(("case", "code"), [("between", "between-thresholds"), ("unlike", "unlike-training-data")])
def test_the_doubt_is_coded(case: str, code: str) -> None:
    found = [row for row in rows(message("normal", case, laterals=1), "OBX") if field(row, 3).startswith("doubt^")]
    assert [(field(row, 4), field(row, 5).split("^")[0]) for row in found] == [("2", code), ("3", "not-analysed")]


@pytest.mark.parametrize("case", ["views", "unlike"])
def test_no_number_stands_beside_a_doubt_about_the_image(case: str) -> None:
    content = message(case)
    assert not [row for row in rows(content, "OBX") if field(row, 2) == "NM"]
    assert " %" not in content.decode().replace("15 %", "").replace("85 %", "")


def test_patient_and_order_are_those_of_the_image() -> None:
    (patient,), (order,) = rows(message("pneumonia"), "PID"), rows(message("pneumonia"), "OBR")
    assert field(patient, 3) == "TEST-0001^^^CXR-NODE TESTS^PI"
    assert (field(patient, 7), field(patient, 8)) == ("20210203", "F")
    assert (field(order, 3), field(order, 18), field(order, 25)) == ("ACC00001", "ACC00001", "P")
    assert field(order, 7).startswith("20240601101500")


def test_numbers_of_the_order_are_taken_where_the_image_has_them() -> None:
    numbers = {"PlacerOrderNumberImagingServiceRequest": "P-7", "FillerOrderNumberImagingServiceRequest": "F-9"}
    plain = made(studies.case("pneumonia"))[ResultKind.HL7]
    image, _ = studies.image(1, **numbers)
    ordered = made(replace(studies.case("pneumonia"), images=(image,)))[ResultKind.HL7]
    (row,) = rows(ordered.content, "OBR")
    assert (field(row, 2), field(row, 3), field(row, 18)) == ("P-7", "F-9", "ACC00001")
    assert ordered.sop_instance_uid != plain.sop_instance_uid


def test_a_study_without_accession_number_is_named_by_its_uid() -> None:
    image, _ = studies.image(1, AccessionNumber="")
    (row,) = rows(made(replace(studies.case("normal"), images=(image,)))[ResultKind.HL7].content, "OBR")
    assert field(row, 3).startswith("1.2.826.0.1.3680043.") and field(row, 18) == ""


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("Latin-1", "Müller^Zoë^^^^^L^A"),
        ("Greek", "Διονυσιος^Άννα^^^^^L^A"),
        ("Japanese", "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"),
        ("undeclared", "^^^^^^U"),
        ("wrongly declared", "^^^^^^U"),
    ],
)
def test_a_name_is_written_as_it_is_or_left_out(character_set: str, name: str) -> None:
    declared, sent = NAMES[character_set]
    placeholder = b"@" * (len(sent) + len(sent) % 2)
    content = studies.source(1, SpecificCharacterSet=declared, PatientName=placeholder.decode())
    content = content.replace(placeholder, sent.ljust(len(placeholder)))
    image, _ = studies.image(1)
    of = made(replace(studies.case("normal"), images=(replace(image, content=content),)))[ResultKind.HL7]
    (row,) = rows(of.content, "PID")
    assert field(row, 5) == name
    parsed(of.content)


def test_delimiters_of_a_value_are_escaped() -> None:
    assert oru.escaped(NASTY) == "A\\F\\B\\S\\C\\T\\D\\R\\E\\E\\F\\.br\\G H I"
    image, _ = studies.image(1, PatientID="A|B^C&D~E", StudyDescription="Chest | PA")
    content = made(replace(studies.case("normal"), images=(image,)))[ResultKind.HL7].content
    (patient,), (order,) = rows(content, "PID"), rows(content, "OBR")
    assert field(patient, 3).split("^")[0] == "A\\F\\B\\S\\C\\T\\D\\R\\E"
    assert field(order, 4).endswith("Chest \\F\\ PA")
    parsed(content)


def test_the_same_images_in_any_order_give_the_same_bytes() -> None:
    case = studies.case("pneumonia", "normal", laterals=1)
    back = replace(case, images=case.images[::-1])
    first, second = made(case)[ResultKind.HL7], made(back)[ResultKind.HL7]
    assert (first.sop_instance_uid, first.content) == (second.sop_instance_uid, second.content)
    assert first.sop_class_uid == "" and first.alternatives == ()
    (header,) = rows(first.content, "MSH")
    assert header[9] == oru.control_id(first.sop_instance_uid) and len(header[9]) == oru.CONTROL_ID_CHARS


def test_a_later_report_says_that_it_replaces_the_earlier_one() -> None:
    """Where there is no SR, too: the message knows the one before it."""
    case = studies.case("normal", "pneumonia")
    alone = replace(case, images=case.images[:1])
    config: Any = CONFIG.model_copy(update={"destinations": tuple(d for d in CONFIG.destinations if d.name == "ris")})
    before = studies.report(alone, config)
    assert [each.kind for each in before.artifacts] == [ResultKind.HL7]
    after = studies.report(replace(case, earlier_reports=(studies.refs(before),)), config)
    text = after.artifacts[0].content.decode()
    assert "This report replaces the earlier one of this study. AI: PNEUMONIA SUSPECTED" in text
    assert rows(before.artifacts[0].content, "OBR")[0][3] == rows(after.artifacts[0].content, "OBR")[0][3]
