"""The transaction is FHIR R4, says what the study was answered, and no Observation of it reads as another verdict."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import Dataset

from cxr_node.dicom.read import header
from cxr_node.domain import Verdict
from cxr_node.messages import fhir_bundle
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ResultKind
from tests.dicom import studies
from tests.messages.studies import made
from tests.messages.test_oru import SETS

Json = dict[str, Any]


def bundle(*cases: str, laterals: int = 0) -> Json:
    found: Json = json.loads(made(studies.case(*cases, laterals=laterals))[ResultKind.FHIR].content)
    return found


def resources(of: Json) -> dict[str, Json]:
    return {entry["resource"]["resourceType"]: entry["resource"] for entry in of["entry"]}


def codes(concept: Json) -> set[str]:
    return {coding["code"] for coding in concept["coding"]}


@pytest.mark.parametrize("name", SETS)
def test_fhir_resources_finds_every_bundle_valid(name: str) -> None:
    cases, laterals, _ = SETS[name]
    found = bundle(*cases, laterals=laterals)
    Bundle.model_validate_json(json.dumps(found))
    kinds = [entry["resource"]["resourceType"] for entry in found["entry"]]
    assert kinds == ["Patient", "ImagingStudy", "Device", "Observation", "DiagnosticReport"]
    there = resources(found)
    assert there["Observation"]["status"] == there["DiagnosticReport"]["status"] == "preliminary"


@pytest.mark.parametrize("name", SETS)
def test_every_reference_is_an_entry_and_every_entry_is_made_once(name: str) -> None:
    cases, laterals, _ = SETS[name]
    found = bundle(*cases, laterals=laterals)
    urls = {entry["fullUrl"] for entry in found["entry"]}
    assert len(urls) == len(found["entry"])

    def references(of: Any) -> list[str]:
        if isinstance(of, dict):
            own = [of["reference"]] if "reference" in of else []
            return own + [each for one in of.values() for each in references(one)]
        return [each for one in of for each in references(one)] if isinstance(of, list) else []

    assert references([entry["resource"] for entry in found["entry"]])
    assert set(references([entry["resource"] for entry in found["entry"]])) <= urls
    for entry in found["entry"]:
        own = entry["resource"]["identifier"][0]
        assert entry["request"]["method"] == "POST" and "?" not in entry["request"]["url"]
        assert entry["request"]["ifNoneExist"] == f"identifier={own.get('system', '')}|{own['value']}"


@pytest.mark.parametrize("name", SETS)
def test_a_reader_of_one_field_alone_never_takes_a_doubt_for_a_no(name: str) -> None:
    cases, laterals, verdict = SETS[name]
    seen = resources(bundle(*cases, laterals=laterals))["Observation"]
    flag = {Verdict.POSITIVE: "POS", Verdict.NEGATIVE: "NEG", Verdict.INDETERMINATE: "IND"}[verdict]
    assert [codes(each) for each in seen["interpretation"]] == [{flag}]
    value = {Verdict.POSITIVE: "52101004", Verdict.NEGATIVE: "272519000", Verdict.INDETERMINATE: "373068000"}[verdict]
    assert codes(seen["valueCodeableConcept"]) == {value, verdict.name}
    for each in seen.get("component", []):
        if "valueQuantity" in each:
            assert [codes(one) for one in each["interpretation"]] == [{flag}]
        if "valueCodeableConcept" in each:
            assert [codes(one) for one in each["interpretation"]] == [{"IND"}]
    report = resources(bundle(*cases, laterals=laterals))["DiagnosticReport"]
    assert "conclusionCode" not in report and report["conclusion"].startswith("AI: ")


def test_patient_order_and_study_are_those_of_the_image() -> None:
    there = resources(bundle("pneumonia"))
    assert there["Patient"]["identifier"][0]["value"] == "TEST-0001"
    assert (there["Patient"]["gender"], there["Patient"]["birthDate"]) == ("female", "2021-02-03")
    study = there["ImagingStudy"]
    source = header.read(studies.source(1))
    assert not isinstance(source, Rejected)
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": f"urn:oid:{source.ref.study_instance_uid}"}
    assert study["identifier"][1]["value"] == "ACC00001"
    assert there["DiagnosticReport"]["basedOn"][0]["identifier"]["value"] == "ACC00001"
    assert there["DiagnosticReport"]["effectiveDateTime"].startswith("2024-06-01")


def test_the_text_is_every_line_of_the_report() -> None:
    (form,) = resources(bundle("pneumonia", "normal", laterals=1))["DiagnosticReport"]["presentedForm"]
    text = base64.b64decode(form["data"]).decode()
    assert text.startswith("IMPRESSIONS\nAI: PNEUMONIA SUSPECTED in image 1.")
    assert "\n\nFINDINGS\nImage 1 (" in text and "not analysed" in text and "Research use only." in text


@pytest.mark.parametrize(
    ("universal", "kind", "system"),
    [("1.2.3", "ISO", "urn:oid:1.2.3"), ("http://h/p", "URI", "http://h/p"), ("x", "L", "")],
)
def test_who_gives_patient_ids_is_named_as_the_header_does(universal: str, kind: str, system: str) -> None:
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = universal, kind
    image, _ = studies.image(1, IssuerOfPatientIDQualifiersSequence=[issuer])
    of = made(replace(studies.case("normal"), images=(image,)))[ResultKind.FHIR]
    assert resources(json.loads(of.content))["Patient"]["identifier"][0].get("system", "") == system


def test_the_same_images_in_any_order_give_the_same_bytes() -> None:
    case = studies.case("pneumonia", "normal", laterals=1)
    back = replace(case, images=case.images[::-1])
    first, second = made(case)[ResultKind.FHIR], made(back)[ResultKind.FHIR]
    assert (first.sop_instance_uid, first.content) == (second.sop_instance_uid, second.content)


def test_a_later_report_names_the_one_that_it_replaces() -> None:
    case = studies.case("normal", "pneumonia")
    before = made(replace(case, images=case.images[:1]))
    earlier = (tuple(each.ref for each in before.values()),)
    after = made(replace(case, earlier_reports=earlier))[ResultKind.FHIR]
    report = resources(json.loads(after.content))["DiagnosticReport"]
    (told,) = report["extension"]
    assert told["url"] == fhir_bundle.REPLACES
    assert told["valueReference"]["identifier"]["value"] == f"urn:oid:{before[ResultKind.FHIR].sop_instance_uid}"
    assert report["conclusion"].startswith("This report replaces the earlier one of this study.")
    Bundle.model_validate_json(after.content)
