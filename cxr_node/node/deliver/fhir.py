"""FHIR R4 transactions to one server: all of a report is there, or nothing of it, and a repeat changes nothing.

The bundle is sent as it is stored, but for the patient, of whom the destination says how the server knows one. The
request URL is the server's own; identifiers stand in the body alone. Of an answer nothing is told but its status and
the codes of its issues: texts may name the patient.

| what comes | what becomes of it |
|---|---|
| 200 with a transaction-response that has 200 or 201 for each entry | delivered |
| 200 or another 2xx without that (a proxy, a login page, an asynchronous server) | repeated |
| 400, 413, 415, 422 | DEAD: the same bytes would get the same answer |
| those with an issue that passes (`_PASSING`), such as lock-error, or not-found of the patient | repeated |
| 3xx (not followed), 401, 403, 404, 405, 409, 412 and all other 4xx, 429, 5xx | repeated, after Retry-After if told |
| no answer, half an answer | repeated: what is there already is not made again (ifNoneExist) |

FHIR R4 http.html 3.1.0.11, valueset-issue-type.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from cxr_node.config.destinations import FhirDestination, PatientReference
from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.http_client import HttpClient
from cxr_node.node.deliver.http_exchange import Answer, Request, in_pieces
from cxr_node.node.deliver.link import ResultFile, StoreReply
from cxr_node.node.network.rejections import Refusals

MEDIA_TYPE = "application/fhir+json"
_JSON = (MEDIA_TYPE, "application/json", "application/json+fhir")
_PERMANENT = (400, 413, 415, 422)
_PASSING = frozenset({
    "transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled", "not-found",
    "multiple-matches",
})  # fmt: skip
_WORD = re.compile(r"[a-z-]{1,40}")
_WORDS = {
    401: "it does not accept our authentication",
    403: "our account may not do this",
    404: "it knows no such patient, or there is no such service at this URL",
    412: "a condition fails: of something there are several",
    429: "it gets too many requests",
    503: "it is busy",
}
_MAX_CODES = 4

Json = dict[str, Any]
MIB = 1024 * 1024
log = logging.getLogger(__name__)


class FhirLink:
    """A FHIR server as a destination. For one thread.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """

    def __init__(self, destination: FhirDestination, refusals: Refusals | None = None) -> None:
        self._destination = destination
        self._http = HttpClient(destination, refusals)

    def open(self, alternatives: Sequence[ResultFile]) -> Sequence[ResultFile]:
        """Get a token."""
        self._http.authorize()
        return alternatives

    def store(self, file: ResultFile) -> StoreReply:
        """POST the transaction."""
        content = addressed(file.content, self._destination)
        headers = {
            "accept": MEDIA_TYPE,
            "content-type": f"{MEDIA_TYPE}; charset=utf-8",
            "content-length": str(len(content)),
            "prefer": "return=minimal",
        }

        body = partial(in_pieces, content)
        request = Request(method="POST", url=self._destination.url, headers=headers, body=body)
        answer = self._http.ask(request, len(content))
        try:
            return judge(answer, len(json.loads(content)["entry"]))
        except DeliveryError as error:
            if answer.status // 100 == 2:
                self._http.confused(str(error))
            raise

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def probe(self) -> str:
        """Read the CapabilityStatement: it is FHIR R4, and takes transactions."""
        where = self._destination.where
        try:
            self._http.authorize()
            request = Request(method="GET", url=f"{self._destination.url}/metadata", headers={"accept": MEDIA_TYPE})
            answer = self._http.ask(request)
            if answer.status // 100 != 2:
                raise _refusal(answer)
            return f"{where} answers as FHIR {_version(answer)}"
        except DeliveryError as error:
            raise DeliveryError(f"{where}: {error}", permanent=error.permanent, answered=error.answered) from error
        finally:
            self._http.close()


def addressed(content: bytes, destination: FhirDestination) -> bytes:
    """Say whose the report is in the way that the destination wants."""
    bundle = json.loads(content)
    is_whole = not _leave_out_pages(bundle, destination)
    first = bundle["entry"][0]
    if first["resource"]["resourceType"] != "Patient":
        return content if is_whole else _encoded(bundle)
    identifier = first["resource"]["identifier"][0]
    if destination.patient_system is not None:
        identifier.setdefault("system", destination.patient_system)
    search = f"identifier={_token(identifier)}"
    first["request"]["ifNoneExist"] = search
    if destination.patient is not PatientReference.CREATE:
        del bundle["entry"][0]
        named = {"type": "Patient", "identifier": identifier}
        told = named if destination.patient is PatientReference.IDENTIFIER else {"reference": f"Patient?{search}"}
        for entry in bundle["entry"]:
            if entry["resource"].get("subject") == {"reference": first["fullUrl"]}:
                entry["resource"]["subject"] = told
    return _encoded(bundle)


def _leave_out_pages(bundle: Json, destination: FhirDestination) -> bool:
    """Whether pages were left out: another destination wants them, or they are too large for this one."""
    report = next((each["resource"] for each in bundle["entry"] if "presentedForm" in each["resource"]), None)
    forms = [] if report is None else report["presentedForm"]
    pages = [each for each in forms if each["contentType"] == "application/pdf"]
    size = sum(each["size"] for each in pages)
    is_too_large = size > destination.pdf_max_mib * MIB
    if destination.pdf and is_too_large:
        log.warning("pages left out destination=%s pages=%d bytes=%d", destination.name, len(pages), size)
    if report is None or not pages or (destination.pdf and not is_too_large):
        return False
    report["presentedForm"] = [each for each in forms if each not in pages]
    return True


def _encoded(bundle: Json) -> bytes:
    return json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode()


def _token(identifier: Json) -> str:
    """Search for an identifier (FHIR R4 search.html 3.1.1.4.10, 3.1.1.3)."""
    parts = (re.sub(r"([\\$,|])", r"\\\1", identifier.get(key, "")) for key in ("system", "value"))
    return "|".join(quote(part, safe=":/.") for part in parts)


def judge(answer: Answer, entries: int) -> StoreReply:
    """By the table above.

    Raises
    ------
    DeliveryError : the report is not there; says whether a repeat can help.
    """
    if answer.status // 100 != 2:
        raise _refusal(answer)
    body = _body(answer)
    if answer.status != 200 or body.get("resourceType") != "Bundle" or body.get("type") != "transaction-response":
        raise DeliveryError(f"{answer.words} without a transaction-response", permanent=False, answered=True)
    found = [_status(each) for each in _dicts(body.get("entry"))]
    if len(found) != entries or not all(status in ("200", "201") for status in found):
        raise DeliveryError(f"{answer.words} that does not name every entry", permanent=False, answered=True)
    return StoreReply(words=f"{answer.words} created={found.count('201')} of {entries}")


def _refusal(answer: Answer) -> DeliveryError:
    codes = [code for code in _codes(answer) if _WORD.fullmatch(code)][:_MAX_CODES]
    words = _WORDS.get(answer.status, "a fault of the server" if answer.status >= 500 else "it refuses")
    if answer.status // 100 == 3:
        words = "a redirect, which is not followed; write the URL that it leads to"
    permanent = answer.status in _PERMANENT and _PASSING.isdisjoint(codes)
    told = f" ({', '.join(codes)})" if codes else ""
    sentence = f"{answer.words}: {words}{told}"
    return DeliveryError(sentence, permanent=permanent, answered=True, after_s=None if permanent else answer.after_s)


def _codes(answer: Answer) -> Iterator[str]:
    """Codes of the issues of an OperationOutcome."""
    body = _body(answer)
    if body.get("resourceType") == "OperationOutcome":
        yield from (str(issue.get("code", "")) for issue in _dicts(body.get("issue")))


def _version(answer: Answer) -> str:
    body = _body(answer)
    version = body.get("fhirVersion")
    if body.get("resourceType") != "CapabilityStatement" or not isinstance(version, str):
        raise DeliveryError(f"{answer.words} without a CapabilityStatement", permanent=False, answered=True)
    if re.fullmatch(r"4\.\d+\.\d+", version) is None:
        raise DeliveryError("it does not speak FHIR R4", permanent=False, answered=True)
    offered = [each.get("code") for rest in _dicts(body.get("rest")) for each in _dicts(rest.get("interaction"))]
    if "transaction" not in offered and "batch" in offered:
        raise DeliveryError("it takes no transactions", permanent=False, answered=True)
    return version


def _status(entry: Json) -> str:
    response = entry.get("response")
    return str(response.get("status", ""))[:3] if isinstance(response, dict) else ""


def _dicts(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _body(answer: Answer) -> Json:
    if answer.media_type not in _JSON:
        return {}
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
