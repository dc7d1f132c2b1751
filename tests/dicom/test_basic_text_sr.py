"""The report for people: shape that viewers show, verdict first, nothing that reads as its opposite."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage

from cxr_node.dicom.results import basic_text_sr
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words import wording
from tests.dicom.contexts import CASES, UNCERTAIN, context


def made(of: Context) -> Dataset:
    return dcmread(io.BytesIO(basic_text_sr.build(of).content))


def name(item: Dataset) -> str:
    code = item.ConceptNameCodeSequence[0]
    return f"{code.CodeValue} {code.CodingSchemeDesignator} {code.CodeMeaning}"


def sections(document: Dataset) -> dict[str, list[Dataset]]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: list(item.ContentSequence)
        for item in document.ContentSequence
        if item.ValueType == "CONTAINER"
    }


@pytest.mark.parametrize("case", CASES)
def test_the_tree_is_tid_2000(case: str) -> None:
    of = context(case)
    document = made(of)
    assert document.SOPClassUID == BasicTextSRStorage
    assert (document.ValueType, document.ContinuityOfContent) == ("CONTAINER", "SEPARATE")
    assert name(document) == "18748-4 LN Diagnostic Imaging Report"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    assert [(item.RelationshipType, item.ValueType, name(item)) for item in document.ContentSequence] == [
        ("HAS CONCEPT MOD", "CODE", "121049 DCM Language of Content Item and Descendants"),
        ("HAS OBS CONTEXT", "CODE", "121005 DCM Observer Type"),
        ("HAS OBS CONTEXT", "UIDREF", "121012 DCM Device Observer UID"),
        ("HAS OBS CONTEXT", "TEXT", "121013 DCM Device Observer Name"),
        ("CONTAINS", "CONTAINER", "121072 DCM Impressions"),
        ("CONTAINS", "CONTAINER", "121070 DCM Findings"),
        ("CONTAINS", "CONTAINER", "272394005 SCT Technique"),
        ("CONTAINS", "CONTAINER", "limitations 99CXRNODE Limitations"),
    ]
    for item in document.ContentSequence:
        if item.ValueType == "CONTAINER":
            assert item.ContinuityOfContent == "SEPARATE"  # viewers lose the headings of CONTINUOUS ones
    assert of.device_uid == document.ContentSequence[2].UID


@pytest.mark.parametrize("case", CASES)
def test_the_impression_is_the_summary_and_leads_to_the_image(case: str) -> None:
    of = context(case)
    (impression,) = sections(made(of))["Impressions"]
    assert name(impression) == "121073 DCM Impression"
    assert impression.TextValue == wording.summary(of.finding)
    (image,) = impression.ContentSequence
    assert (image.RelationshipType, image.ValueType) == ("INFERRED FROM", "IMAGE")
    assert name(image) == "121112 DCM Source of Measurement"  # CID 7003
    reference = image.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == of.source.ref.sop_instance_uid
    assert reference.ReferencedSOPClassUID == of.source.ref.sop_class_uid


@pytest.mark.parametrize("case", CASES)
def test_findings_has_one_line_which_is_one(case: str) -> None:
    (finding,) = sections(made(context(case)))["Findings"]
    assert name(finding) == "121071 DCM Finding"
    assert len(finding.TextValue) <= 80  # viewers do not wrap it
    begins = {"pneumonia": "Pneumonia suspected", "normal": "No pneumonia detected"}
    assert finding.TextValue.startswith(begins.get(case, "UNCERTAIN"))


@pytest.mark.parametrize("case", CASES)
def test_technique_states_thresholds_map_and_model(case: str) -> None:
    of = context(case)
    lines = [item.TextValue for item in sections(made(of))["Technique"]]
    assert "Thresholds: ruled out below 15 %, reported from 85 %." in lines
    assert any(line.startswith("Heat map") for line in lines) == of.shows_map
    assert any(of.finding.identity.weights_sha256[:12] in line and "1.0.0" in line for line in lines)


def test_limitations_tell_what_it_is_not_and_remarks() -> None:
    of = context()
    of = replace(of, radiograph=replace(of.radiograph, remarks=("The age is not known.",)))
    lines = [item.TextValue for item in sections(made(of))["Limitations"]]
    assert lines[0].startswith("Research use only.")
    assert "Assessed for pneumonia only. Nothing else was evaluated." in lines
    assert "The age is not known." in lines
    assert any("not the outline of a lesion" in line for line in lines)


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_left_to_the_measurements(case: str) -> None:
    """What a calibration was fitted on, and how far which distance went, is nothing to a reader of one report."""
    of = context(case)
    identity = replace(of.finding.identity, calibration="temperature 1.7, fitted on kermany224, each also corrupted")
    of = replace(of, finding=replace(of.finding, identity=identity))
    said = made(of).to_json()
    for word in ("kermany", "temperature", "corrupted", "distance", "spread", "0.15", "0.85", "between-thresholds"):
        assert word not in said


@pytest.mark.parametrize("case", UNCERTAIN)
def test_no_line_of_an_uncertain_report_reads_as_negative(case: str) -> None:
    document = made(context(case))
    assert document.SeriesDescription.startswith("AI: UNCERTAIN")
    for items in sections(document).values():
        assert not any("no pneumonia" in item.TextValue.lower() for item in items)
