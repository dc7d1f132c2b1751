"""The printed page of an image within a FHIR report: the bytes that an archive gets, and none that says otherwise."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread

from cxr_node.config import loader, schema
from cxr_node.config.destinations import FhirDestination
from cxr_node.node.deliver import fhir
from cxr_node.outcome import Artifact, StudyCase
from cxr_node.result_kinds import ReportPer, ResultKind
from tests.dicom import studies
from tests.messages.studies import EHR, PACS
from tests.messages.test_fhir_bundle import Json, resources


def settings(*, pdf: bool) -> schema.Config:
    with_page = {**EHR, "pdf": pdf}
    return loader.parse({"spool": {"path": "."}, "destinations": [with_page], "results": {"max_heatmap_px": 1024}})


PAGED, BARE = settings(pdf=True), settings(pdf=False)


def study(*cases: str, laterals: int = 0) -> tuple[StudyCase, list[bytes]]:
    """A study whose images bring their pages, and the PDF in each page's DICOM object, as an archive gets it."""
    case = studies.case(*cases, laterals=laterals, config=PAGED)
    images, pdfs = [], []
    for number, name in enumerate(cases, 1):
        image, outcome = studies.image(number, name, PAGED)
        (page,) = (each for each in outcome.pictures if each.kind is ResultKind.PDF)
        assert image.judgement.page_sha256 == hashlib.sha256(page.content).hexdigest()
        images.append(replace(image, page=page.content))
        dataset = dcmread(io.BytesIO(page.content))
        pdfs.append(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
    return replace(case, images=tuple(images)), pdfs


def message(case: StudyCase, config: schema.Config = PAGED) -> Artifact:
    (found,) = studies.report(case, config).artifacts
    return found


def forms(content: bytes) -> list[Json]:
    found: list[Json] = resources(json.loads(content))["DiagnosticReport"]["presentedForm"]
    return found


def pages(content: bytes) -> list[bytes]:
    return [base64.b64decode(each["data"]) for each in forms(content) if each["contentType"] == "application/pdf"]


ATTACHED: dict[str, tuple[tuple[str, ...], int, list[int]]] = {
    "positive": (("pneumonia",), 0, [0]),
    "negative": (("normal",), 0, [0]),
    "doubt": (("views",), 0, [0]),
    "one of two": (("normal", "pneumonia"), 0, [1]),
    "both": (("pneumonia", "pneumonia"), 0, [0, 1]),
    "the doubt before the negative": (("normal", "between"), 1, [1]),
    "none": ((), 2, []),
}


@pytest.mark.parametrize("name", ATTACHED)
def test_the_pages_are_those_that_the_verdict_rests_on_to_the_byte(name: str) -> None:
    cases, laterals, wanted = ATTACHED[name]
    case, pdfs = study(*cases, laterals=laterals)
    content = message(case).content
    Bundle.model_validate_json(content)
    assert pages(content) == [pdfs[each] for each in wanted]
    for each in forms(content)[1:]:
        pdf = base64.b64decode(each["data"])
        assert pdf.startswith(b"%PDF-") and each["size"] == len(pdf)
        assert base64.b64decode(each["hash"]) == hashlib.sha1(pdf, usedforsecurity=False).digest()
        assert "(research)" in each["title"]
        assert (f"of {len(cases) + laterals}" in each["title"]) == (len(cases) + laterals > 1)
    assert forms(content)[0]["contentType"].startswith("text/plain")


def test_the_same_images_in_any_order_give_the_same_bytes() -> None:
    case, _ = study("pneumonia", "pneumonia")
    first, second = message(case), message(replace(case, images=case.images[::-1]))
    assert (first.sop_instance_uid, first.content) == (second.sop_instance_uid, second.content)


def test_other_bytes_have_another_uid_and_without_pages_nothing_changes() -> None:
    case, _ = study("pneumonia")
    bare = replace(case, images=tuple(replace(each, page=b"") for each in case.images))
    assert message(case).sop_instance_uid != message(bare).sop_instance_uid
    assert message(bare).content == message(studies.case("pneumonia", config=BARE), BARE).content


def test_pages_are_made_for_a_destination_that_holds_them_and_sent_to_none() -> None:
    assert PAGED.kinds(ReportPer.STUDY) == {ResultKind.FHIR, ResultKind.PDF}
    assert PAGED.wishes["ehr"].kinds == (ResultKind.FHIR,)
    assert BARE.kinds(ReportPer.STUDY) == {ResultKind.FHIR}
    archive = loader.parse({"spool": {"path": "."}, "destinations": [PACS, {**EHR, "pdf": True}]})
    assert [name for name, wish in archive.wishes.items() if ResultKind.PDF in wish.kinds] == ["pacs"]


def destination(**more: Any) -> FhirDestination:
    return FhirDestination.model_validate({**EHR, **more})


@pytest.mark.parametrize("patient", [{}, {"patient": "create", "patient_system": "urn:oid:1.2"}])
def test_a_destination_gets_them_as_it_is_configured(patient: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    case, pdfs = study("pneumonia", "pneumonia")
    content = message(case).content
    assert pages(fhir.addressed(content, destination(pdf=True, **patient))) == pdfs
    assert not caplog.records
    assert pages(fhir.addressed(content, destination(**patient))) == []
    assert not caplog.records
    small = sum(map(len, pdfs)) / 1024**2 * 0.99
    left = fhir.addressed(content, destination(pdf=True, pdf_max_mib=small, **patient))
    assert pages(left) == [] and len(forms(left)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"pages left out destination=ehr pages=2 bytes={sum(map(len, pdfs))}"
    ]
