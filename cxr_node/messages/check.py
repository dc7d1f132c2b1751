"""Our own check of messages before they are stored: read back from their bytes, they must say what was answered.

Read as a stranger would, one field at a time: none may be taken for another verdict than that of the study.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from cxr_node.dicom.results import measurement_sr
from cxr_node.dicom.results.study import Study
from cxr_node.domain import Verdict
from cxr_node.errors import UnsoundResultError
from cxr_node.messages.answer import pages_of, priority_of
from cxr_node.messages.oru import DOUBT, FLAGS, STUDY_UID, escaped
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

_ABSENT = {measurement_sr.PRESENCE[Verdict.NEGATIVE].value, Verdict.NEGATIVE.name, FLAGS[Verdict.NEGATIVE], "N"}
"""What reads as negative, wherever it stands alone."""


def require_sound(artifacts: Sequence[Artifact], study: Study) -> None:
    """Let no message pass that breaks a rule.

    Raises
    ------
    UnsoundResultError : with the names of the first rules; no patient data.
    """
    readers = {ResultKind.HL7: _flaws_of_oru, ResultKind.FHIR: _flaws_of_bundle}
    flaws = [
        f"{each.kind}: {flaw}" for each in artifacts if each.kind in readers for flaw in readers[each.kind](each, study)
    ]
    if flaws:
        raise UnsoundResultError(f"{len(flaws)} flaws in its messages: {'; '.join(flaws[:8])}")


def _flaws_of_oru(artifact: Artifact, study: Study) -> Iterator[str]:
    rows = [segment.split("|") for segment in artifact.content.decode("utf-8").rstrip("\r").split("\r")]
    names = [row[0] for row in rows]
    priority = priority_of(study)
    head = ["MSH", "PID", "ORC", "OBR", "NTE", *(["TQ1"] if priority else [])]
    if names[: len(head)] != head or set(names[len(head) :]) != {"OBX"}:
        yield "segments"
        return
    if {rows[3][5], *(row[9] for row in rows if row[0] == "TQ1")} != {priority}:
        yield "priority"
    seen = [row + [""] * (19 - len(row)) for row in rows if row[0] == "OBX"]
    verdict = study.verdict
    first = seen[0]
    if (first[5].split("^")[0], first[8]) != (measurement_sr.PRESENCE[verdict].value, FLAGS[verdict]):
        yield "verdict"
    stated = [{*row[5].split("^"), row[8]} for row in seen if row[2] in ("CE", "NM")]
    if verdict is not Verdict.NEGATIVE and any(_ABSENT & each for each in stated):
        yield "reads as negative"
    if rows[3][25:26] != ["P"] or any(row[11] == "F" for row in seen):
        yield "not preliminary"
    if escaped(study.summary) not in [row[5] for row in seen]:
        yield "summary"
    if [row[5] for row in seen if row[3].split("^")[0] == STUDY_UID[0]] != [study.source.ref.study_instance_uid]:
        yield "study"
    if sum(row[3].split("^")[0] == DOUBT[0] for row in seen) != _silent(study):
        yield "doubts"


def _flaws_of_bundle(artifact: Artifact, study: Study) -> Iterator[str]:
    entries = json.loads(artifact.content)["entry"]
    there = {entry["resource"]["resourceType"]: entry["resource"] for entry in entries}
    seen, report, verdict = there["Observation"], there["DiagnosticReport"], study.verdict
    if measurement_sr.PRESENCE[verdict].value not in _codes(seen["valueCodeableConcept"]):
        yield "verdict"
    if [_codes(each) for each in seen["interpretation"]] != [{FLAGS[verdict]}]:
        yield "interpretation"
    parts = [seen, *seen.get("component", [])]
    said = [
        _codes(one) for part in parts for one in [part.get("valueCodeableConcept"), *part.get("interpretation", ())]
    ]
    if verdict is not Verdict.NEGATIVE and any(_ABSENT & each for each in said):
        yield "reads as negative"
    if {seen["status"], report["status"]} != {"preliminary"} or "conclusionCode" in report:
        yield "not preliminary"
    if report["conclusion"] != study.summary:
        yield "summary"
    if there["ImagingStudy"]["identifier"][0]["value"] != f"urn:oid:{study.source.ref.study_instance_uid}":
        yield "study"
    if sum(DOUBT[0] in _codes(part["code"]) for part in parts) != _silent(study):
        yield "doubts"
    attached = [base64.b64decode(each["data"]) for each in report["presentedForm"][1:]]
    if attached != [each.pdf for each in pages_of(study)] or not all(each.startswith(b"%PDF-") for each in attached):
        yield "pages"
    if not all(entry["request"].get("ifNoneExist") for entry in entries):
        yield "unconditional"


def _silent(study: Study) -> int:
    """Images without an answer."""
    return len(study.others) + sum(each.finding.decision.verdict is Verdict.INDETERMINATE for each in study.images)


def _codes(concept: dict[str, Any] | None) -> set[str]:
    return {each["code"] for each in (concept or {}).get("coding", ())}
