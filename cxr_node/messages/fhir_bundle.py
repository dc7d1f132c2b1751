"""The report of a study as a FHIR R4 transaction: what a server without DICOM keeps of it, preliminary, never final.

Each resource is made only where none of its identifier is there (ifNoneExist), so that a repeat changes nothing; the
identifiers follow from the UIDs of what they name. The patient is named by identifier; whether the server must know
it, or gets it made, is the destination's (`node.deliver.fhir`). An Observation alone must not read as negative where
nothing was answered: an UNCERTAIN is Undetermined, interpreted as IND, as is each number beside it.
FHIR R4: Bundle, Observation, DiagnosticReport; HL7 DICOM SR to FHIR Resource Mapping 1.0, as far as R4 has its
resources: one Qualitative Evaluation, the Device of TID 4019, the study and the patient as they are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cxr_node.dicom.results.context import uid
from cxr_node.dicom.results.identity import Code, Order, Patient
from cxr_node.dicom.results.study import Study
from cxr_node.dicom.words.coded_findings import OWN_SCHEME
from cxr_node.dicom.words.wording import FOOTER, PAGE_TITLE
from cxr_node.domain import Verdict
from cxr_node.messages.answer import Answer, Doubt, Number, Page, answer_of
from cxr_node.messages.oru import ALGORITHM_PARAMETERS, DIAGNOSTIC_REPORT, DOUBT, FLAGS
from cxr_node.outcome import Artifact
from cxr_node.result_kinds import ResultKind

Json = dict[str, Any]
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    OWN_SCHEME: f"urn:oid:{uid('coding scheme', OWN_SCHEME)}",
}
"""URI of each coding scheme by its designator in DICOM (PS3.16 8)."""
DICOM_UID, UUID_URN = "urn:dicom:uid", "urn:ietf:rfc3986"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_INTERPRETED = {Verdict.POSITIVE: "Positive", Verdict.NEGATIVE: "Negative", Verdict.INDETERMINATE: "Indeterminate"}
REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
PDF = "application/pdf"
_GENDERS = {"M": "male", "F": "female", "O": "other"}
_NAME_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_REPRESENTATIONS = {"A": "ABC", "I": "IDE", "P": "SYL"}


def build(study: Study) -> Artifact:
    """Make the bundle about a study."""
    answer = answer_of(study, ResultKind.FHIR)
    return Artifact(
        kind=ResultKind.FHIR,
        sop_class_uid="",
        sop_instance_uid=answer.uid,
        series_instance_uid=study.series_uid(ResultKind.FHIR),
        content=encode(answer),
    )


def encode(answer: Answer) -> bytes:
    """JSON in UTF-8, the same bytes for the same answer. The patient, where one is named, comes first."""
    entries = [_patient(answer.patient)] if answer.patient.identifier else []
    entries += [_imaging_study(answer), _device(answer), _observation(answer), _report(answer)]
    bundle = {"resourceType": "Bundle", "type": "transaction", "timestamp": _instant(answer.at), "entry": entries}
    return json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode()


def urn(*parts: str) -> str:
    """URN of a resource: a function of what it names."""
    return uuid.UUID(int=int(uid("fhir", *parts).removeprefix("2.25."))).urn


def _entry(resource: Json, full_url: str) -> Json:
    """Made only where no resource of its first identifier is there; the search is in the body, never in a URL."""
    identifier = resource["identifier"][0]
    search = f"identifier={identifier.get('system', '')}|{identifier['value']}"
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": search}
    return {"fullUrl": full_url, "resource": resource, "request": request}


def _patient(patient: Patient) -> Json:
    resource: Json = {"resourceType": "Patient", "identifier": [_patient_identifier(patient)]}
    if patient.names:
        resource["name"] = [_name(each.representation, each.parts) for each in patient.names]
    if gender := _GENDERS.get(patient.sex):
        resource["gender"] = gender
    if len(patient.birth_date) == len("YYYYMMDD"):
        resource["birthDate"] = _date(patient.birth_date)
    return _entry(resource, _patient_urn(patient))


def _patient_urn(patient: Patient) -> str:
    return urn("patient", patient.issuer, *patient.issuer_universal, patient.identifier)


def _patient_identifier(patient: Patient) -> Json:
    """With the URI of who gave it, where the header names one; else the destination says whose it is."""
    universal, kind = patient.issuer_universal
    system = {"ISO": f"urn:oid:{universal}", "UUID": f"urn:uuid:{universal}", "URI": universal}.get(kind, "")
    known = {"system": system} if universal and system else {}
    return {"type": _concept(("PI", "", ""), _IDENTIFIER_TYPE), **known, "value": patient.identifier}


def _name(representation: str, parts: tuple[str, ...]) -> Json:
    family, given, middle, prefix, suffix = parts
    name: Json = {"family": family, "given": [each for each in (given, middle) if each]}
    name |= {"prefix": [prefix] if prefix else [], "suffix": [suffix] if suffix else []}
    if representation != "A":
        name["extension"] = [{"url": _NAME_REPRESENTATION, "valueCode": _REPRESENTATIONS[representation]}]
    return {key: value for key, value in name.items() if value}


def _imaging_study(answer: Answer) -> Json:
    resource: Json = {
        "resourceType": "ImagingStudy",
        "identifier": [_dicom_uid(answer.study_instance_uid), *_accession(answer.order)],
        "status": "available",
        **_subject(answer.patient),
    }
    if started := _moment(answer.order):
        resource["started"] = started
    if answer.order.description:
        resource["description"] = answer.order.description
    return _entry(resource, _study_urn(answer))


def _study_urn(answer: Answer) -> str:
    return urn("study", answer.study_instance_uid)


def _device(answer: Answer) -> Json:
    """TID 4019: the algorithm on this installation; new weights are a new device."""
    algorithm = answer.algorithms[0]
    resource = {
        "resourceType": "Device",
        "identifier": [_dicom_uid(algorithm.device_uid)],
        "status": "active",
        "manufacturer": algorithm.manufacturer,
        "serialNumber": algorithm.serial_number,
        "deviceName": [{"name": algorithm.name, "type": "model-name"}],
        "version": [{"value": algorithm.version}],
    }
    return _entry(resource, _device_urn(answer))


def _device_urn(answer: Answer) -> str:
    return urn("device", answer.algorithms[0].device_uid)


def _observation(answer: Answer) -> Json:
    full_url = urn("observation", answer.uid)
    own = _coding((answer.verdict.name, OWN_SCHEME, answer.words))
    resource: Json = {
        "resourceType": "Observation",
        "identifier": [{"system": UUID_URN, "value": full_url}],
        "status": "preliminary",
        "category": [_concept(("imaging", "", "Imaging"), _CATEGORY)],
        "code": _concept(answer.finding),
        **_subject(answer.patient),
        **_effective(answer),
        "valueCodeableConcept": {"coding": [_coding(answer.presence), own], "text": answer.words},
        "interpretation": [_interpreted(answer.verdict)],
        "note": [{"text": f"{FOOTER} Not verified by a physician."}, {"text": answer.summary}],
        "device": {"reference": _device_urn(answer)},
        "derivedFrom": [{"reference": _study_urn(answer)}],
        "component": list(_components(answer)),
    }
    return _entry({key: value for key, value in resource.items() if value}, full_url)


def _components(answer: Answer) -> Iterator[Json]:
    if answer.number is not None:
        yield _certainty(answer.number, answer.verdict)
    for doubt in answer.doubts:
        yield _doubt(doubt)
    for algorithm in answer.algorithms:
        for parameter in algorithm.parameters:
            yield {"code": _concept(ALGORITHM_PARAMETERS), "valueString": parameter}


def _certainty(number: Number, verdict: Verdict) -> Json:
    """With the interpretation of the verdict, so that a small number beside a doubt is not taken for a no."""
    unit, _, words = number.unit
    quantity = {"value": float(number.value), "unit": words, "system": SYSTEMS["UCUM"], "code": unit}
    return {"code": _concept(number.concept), "valueQuantity": quantity, "interpretation": [_interpreted(verdict)]}


def _doubt(doubt: Doubt) -> Json:
    said = {"coding": [_coding(doubt.code)], "text": f"Image {doubt.image}: {doubt.code[2]}"}
    return {
        "code": _concept(DOUBT),
        "valueCodeableConcept": said,
        "interpretation": [_interpreted(Verdict.INDETERMINATE)],
    }


def _report(answer: Answer) -> Json:
    resource: Json = {
        "resourceType": "DiagnosticReport",
        "extension": [_replaced(each) for each in answer.replaced],
        "identifier": [_dicom_uid(answer.uid)],
        "basedOn": [{"type": "ServiceRequest", "identifier": identifier} for identifier in _accession(answer.order)],
        "status": "preliminary",
        "category": [_concept(("RAD", "", "Radiology"), _SECTION)],
        "code": _concept(DIAGNOSTIC_REPORT),
        **_subject(answer.patient),
        **_effective(answer),
        "result": [{"reference": urn("observation", answer.uid)}],
        "imagingStudy": [{"reference": _study_urn(answer)}],
        "conclusion": answer.summary,
        "presentedForm": [_text(answer), *(_page(answer, each) for each in answer.pages)],
    }
    return _entry({key: value for key, value in resource.items() if value}, urn("report", answer.uid))


def _replaced(earlier: str) -> Json:
    return {"url": REPLACES, "valueReference": {"type": "DiagnosticReport", "identifier": _dicom_uid(earlier)}}


def _text(answer: Answer) -> Json:
    """Every line of the report under its heading."""
    lines: list[str] = []
    heading: Code | None = None
    for line in answer.lines:
        if line.heading != heading:
            heading = line.heading
            lines += [*([""] if lines else []), heading[2].upper()]
        lines.append(line.text)
    content = "\n".join(lines).encode("ascii")
    return {
        "contentType": "text/plain; charset=utf-8",
        "language": "en",
        "data": base64.b64encode(content).decode("ascii"),
        "title": "AI report (research)",
        "creation": _instant(answer.at),
    }


def _page(answer: Answer, page: Page) -> Json:
    """A page that is about one of several images says so in its title."""
    of = f", image {page.image} of {len(answer.images)}" if len(answer.images) > 1 else ""
    return {
        "contentType": PDF,
        "language": "en",
        "data": base64.b64encode(page.pdf).decode("ascii"),
        "size": len(page.pdf),
        "hash": base64.b64encode(hashlib.sha1(page.pdf, usedforsecurity=False).digest()).decode("ascii"),
        "title": f"{PAGE_TITLE}{of}",
        "creation": _instant(answer.at),
    }


def _subject(patient: Patient) -> Json:
    """Whose it is; nothing where the image names no patient."""
    return {"subject": {"reference": _patient_urn(patient)}} if patient.identifier else {}


def _effective(answer: Answer) -> Json:
    taken = _moment(answer.order)
    return ({"effectiveDateTime": taken} if taken else {}) | {"issued": _instant(answer.at)}


def _moment(order: Order) -> str:
    """FHIR dateTime: a time has an offset, and seconds; what has not is told as a date."""
    at, offset = order.studied_at, order.utc_offset
    if len(at) < len("YYYYMMDD"):
        return ""
    if len(at) != len("YYYYMMDDHHMMSS") or not offset:
        return _date(at)
    return f"{_date(at)}T{at[8:10]}:{at[10:12]}:{at[12:14]}{offset[:3]}:{offset[3:5]}"


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _dicom_uid(value: str) -> Json:
    return {"system": DICOM_UID, "value": f"urn:oid:{value}"}


def _accession(order: Order) -> list[Json]:
    if not order.accession_number:
        return []
    return [{"type": _concept(("ACSN", "", "Accession ID"), _IDENTIFIER_TYPE), "value": order.accession_number}]


def _interpreted(verdict: Verdict) -> Json:
    return _concept((FLAGS[verdict], "", _INTERPRETED[verdict]), INTERPRETATION)


def _concept(code: Code, system: str = "") -> Json:
    return {"coding": [_coding(code, system)]}


def _coding(code: Code, system: str = "") -> Json:
    value, scheme, meaning = code
    known = system or SYSTEMS.get(scheme, "")
    found = {"system": known, "code": value, "display": meaning}
    return {key: each for key, each in found.items() if each}
