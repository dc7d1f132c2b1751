"""The check of messages notices each way in which one could overstate, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cxr_node import study_pipeline
from cxr_node.dicom.results.study import Study
from cxr_node.errors import UnsoundResultError
from cxr_node.messages import fhir_bundle, oru
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind
from tests.dicom import studies
from tests.messages.studies import CONFIG

BROKEN: list[tuple[ResultKind, tuple[str, ...], bytes, bytes, str]] = [
    (ResultKind.HL7, ("views",), b"|||IND|||P|", b"||||||P|", "verdict"),
    (ResultKind.HL7, ("views",), b"373068000^Undetermined", b"272519000^Absent", "reads as negative"),
    (ResultKind.HL7, ("between",), b"%^Percent^UCUM||IND", b"%^Percent^UCUM||NEG", "reads as negative"),
    (ResultKind.HL7, ("normal",), b"||RAD|P\r", b"||RAD|F\r", "not preliminary"),
    (ResultKind.HL7, ("pneumonia", "normal"), b"AI: PNEUMONIA SUSPECTED in image 1", b"AI: fine", "summary"),
    (ResultKind.HL7, ("normal", "views"), b"|doubt^", b"|other^", "doubts"),
    (ResultKind.HL7, ("normal",), b"NTE|1", b"ZZZ|1", "segments"),
    (ResultKind.HL7, ("between",), b"\rOBX|1|", b"\rTQ1|1||||||||S\rOBX|1|", "segments"),
    (ResultKind.HL7, ("views",), b"^^Chest PA||", b"^^Chest PA|S|", "priority"),
    (ResultKind.FHIR, ("views",), b'"code":"373068000"', b'"code":"272519000"', "verdict"),
    (ResultKind.FHIR, ("between",), b'"code":"IND"', b'"code":"NEG"', "interpretation"),
    (ResultKind.FHIR, ("between",), b'"code":"IND"', b'"code":"N"', "reads as negative"),
    (ResultKind.FHIR, ("normal",), b'"status":"preliminary"', b'"status":"final"', "not preliminary"),
    (ResultKind.FHIR, ("pneumonia",), b'"conclusion":"AI: ', b'"conclusion":"', "summary"),
    (ResultKind.FHIR, ("normal", "views"), b'"code":"doubt"', b'"code":"other"', "doubts"),
    (ResultKind.FHIR, ("normal",), b'"ifNoneExist"', b'"ifMatch"', "unconditional"),
]
BUILDERS: dict[ResultKind, Callable[[Study], Artifact]] = {
    ResultKind.HL7: oru.build,
    ResultKind.FHIR: fhir_bundle.build,
}


@pytest.mark.parametrize(("kind", "cases", "old", "new", "flaw"), BROKEN, ids=lambda value: str(value)[:24])
def test_a_message_that_overstates_does_not_leave(
    monkeypatch: pytest.MonkeyPatch, kind: ResultKind, cases: tuple[str, ...], old: bytes, new: bytes, flaw: str
) -> None:
    def bugged(study: Study) -> Artifact:
        made = BUILDERS[kind](study)
        assert old in made.content
        return replace(made, content=made.content.replace(old, new))

    case = studies.case(*cases)
    monkeypatch.setattr(study_pipeline, "STUDY_BUILDERS", {**study_pipeline.STUDY_BUILDERS, kind: bugged})
    with pytest.raises(UnsoundResultError, match=flaw) as raised:
        study_pipeline.report_study(case, CONFIG)
    assert "TEST-0001" not in str(raised.value)
