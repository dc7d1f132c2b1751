"""Reports as FHIR DiagnosticReport: bundles, single resources, lists of them, or one a line (NDJSON); R4 and R5."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any

from cxr_node.assurance.report import WITHDRAWN, MistakeError, Readers, Report, Source, accessions, decoded, instant
from cxr_node.assurance.report_rules import Reading, Said
from cxr_node.dicom.words.wording import FOOTER
from cxr_node.messages.fhir_bundle import DICOM_UID, SYSTEMS

PNEUMONIA_CODES = frozenset({("233604007", SYSTEMS["SCT"])})
"""Of a conclusion that is coded."""
_FHIR_FINAL = {"final", "amended", "corrected", "appended"}
_FHIR_GONE = {"cancelled", "entered-in-error"}
_TAG = re.compile(r"<[^>]*>")


def reports(text: str, readers: Readers) -> Iterator[Report]:
    """A bundle, one resource, a list of them, or one a line (NDJSON)."""
    try:
        content = [json.loads(text)]
    except ValueError:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise MistakeError("it is no JSON") from error
    resources = list(_resources(content))
    by_reference = {reference: each for references, each in resources for reference in references}
    for _, each in resources:
        if each.get("resourceType") == "DiagnosticReport":
            yield from _of_diagnostic_report(each, by_reference, readers)


def _resources(content: Any, full_url: str = "") -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every resource with what others refer to it by."""
    if isinstance(content, list):
        for each in content:
            yield from _resources(each)
    elif isinstance(content, dict) and content.get("resourceType") == "Bundle":
        for entry in content.get("entry") or ():
            if isinstance(entry, dict):
                yield from _resources(entry.get("resource"), str(entry.get("fullUrl") or ""))
    elif isinstance(content, dict) and "resourceType" in content:
        yield (full_url, f"{content['resourceType']}/{content.get('id') or ''}"), content
        for contained in content.get("contained") or ():
            yield (f"#{contained.get('id')}",), contained


def _of_diagnostic_report(
    resource: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], readers: Readers
) -> Iterator[Report]:
    said = _conclusion(resource)
    if FOOTER in said:
        readers.skipped.own += 1
        return
    status = resource.get("status")
    if status not in _FHIR_FINAL | _FHIR_GONE:
        readers.skipped.not_final += 1
        return
    codes = {
        (str(coding.get("code")), str(coding.get("system")))
        for concept in resource.get("conclusionCode") or ()
        for coding in concept.get("coding") or ()
    }
    reading = WITHDRAWN if status in _FHIR_GONE else readers.rules.read(said)
    if status in _FHIR_FINAL and reading.said is Said.NOT_STATED and codes & PNEUMONIA_CODES:
        reading = Reading(Said.PRESENT, "code")
    numbers, uids = _named_by(resource, others)
    at = instant(str(resource.get("issued") or resource.get("effectiveDateTime") or ""))
    yield Report(source=Source.FHIR, accession_keys=accessions(numbers), uids=uids, reading=reading, said_at=at)


def _conclusion(resource: Mapping[str, Any]) -> str:
    """What it says: its conclusion, else the text of its form, else its narrative."""
    parts = [f"CONCLUSION:\n{resource['conclusion']}"] if resource.get("conclusion") else []
    for form in resource.get("presentedForm") or ():
        kind = str(form.get("contentType") or "").partition(";")[0]
        if kind in ("text/plain", "text/html") and form.get("data"):
            parts.insert(0, _plain(decoded(base64.b64decode(form["data"])), kind))
    if not parts and isinstance(resource.get("text"), Mapping):
        parts.append(_plain(str(resource["text"].get("div") or ""), "text/html"))
    return "\n".join(parts)


def _plain(text: str, kind: str) -> str:
    return text if kind == "text/plain" else unescape(_TAG.sub("\n", text))


def _named_by(resource: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], frozenset[str]]:
    """Accession Numbers and Study Instance UIDs of a report, and of the order and the study that it refers to."""
    linked = [*(resource.get("basedOn") or ()), *(resource.get("imagingStudy") or ()), *(resource.get("study") or ())]
    identifiers = list(resource.get("identifier") or ())
    for link in linked:
        identifiers += [link["identifier"]] if isinstance(link.get("identifier"), Mapping) else []
        other = others.get(str(link.get("reference") or "none"), {})
        own = other.get("identifier") or ()
        identifiers += [own] if isinstance(own, Mapping) else list(own)
    numbers: list[str] = []
    uids: set[str] = set()
    for each in identifiers:
        value = str(each.get("value") or "")
        kinds = {coding.get("code") for coding in (each.get("type") or {}).get("coding") or ()}
        if each.get("system") == DICOM_UID:
            uids.add(value.removeprefix("urn:oid:"))
        elif kinds & {"ACSN", "FILL", "PLAC"}:
            numbers.insert(0 if "ACSN" in kinds else len(numbers), value)
    return numbers, frozenset(uids - {""})
