"""The mark "look here": for PNEUMONIA alone, on the radiograph and its picture, without a purpose."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from pydicom import Dataset, dcmread

from cxr_node.dicom.results import key_object
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words import wording
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import CASES, context


def made(of: Context) -> Dataset:
    artifact = key_object.build(of)
    assert artifact is not None
    return dcmread(io.BytesIO(artifact.content))


def marked(document: Dataset) -> list[str]:
    images = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    assert not any("ConceptNameCodeSequence" in item for item in images)
    assert not any("PurposeOfReferenceCodeSequence" in item.ReferencedSOPSequence[0] for item in images)
    return [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images]


def test_it_says_of_interest_and_no_more() -> None:
    of = context()
    document = made(of)
    title = document.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert document.Modality == "KO"
    described = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"]
    assert wording.summary(of.finding) in described
    for absent in ("CompletionFlag", "VerificationFlag", "PreliminaryFlag"):  # not of this IOD (PS3.3 C.17.6.2)
        assert absent not in document


def test_it_marks_the_radiograph_and_its_picture_and_names_them_as_evidence() -> None:
    of = context()
    document = made(of)
    expected = [of.source.ref.sop_instance_uid, of.instance_uid(ResultKind.HEATMAP)]
    assert marked(document) == expected
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for series in evidence] == expected


def test_a_picture_that_is_not_made_is_not_marked() -> None:
    of = replace(context(), kinds=frozenset({ResultKind.KEY_OBJECT}))
    document = made(of)
    assert marked(document) == [of.source.ref.sop_instance_uid]
    assert len(document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) == 1


@pytest.mark.parametrize("case", [case for case in CASES if case != "pneumonia"])
def test_no_key_object_for_any_other_verdict(case: str) -> None:
    assert key_object.build(context(case)) is None
