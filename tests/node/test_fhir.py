"""FHIR transactions to servers of every temper: what counts as delivered, what is tried again, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config import loader
from cxr_node.config.destinations import FhirDestination
from cxr_node.errors import ConfigError, DeliveryError, UnreachableError
from cxr_node.node.deliver import fhir
from cxr_node.node.deliver.fhir import FhirLink
from cxr_node.node.deliver.link import ResultFile, link_to
from tests.node import peers
from tests.node.fhir_server import CAPABILITIES, Json, Server, outcome, serving

PATIENT: Json = {
    "fullUrl": "urn:uuid:1",
    "resource": {"resourceType": "Patient", "identifier": [{"value": "47|11"}], "name": [{"family": "CANARY"}]},
    "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=|47|11"},
}
OBSERVATION: Json = {
    "fullUrl": "urn:uuid:2",
    "resource": {"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}},
    "request": {"method": "POST", "url": "Observation", "ifNoneExist": "identifier=urn:ietf:rfc3986|urn:uuid:2"},
}
BUNDLE = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [PATIENT, OBSERVATION]}).encode()
RESPONSE = {"resourceType": "Bundle", "type": "transaction-response"}
FILE = ResultFile(sop_class_uid="", size_bytes=len(BUNDLE), content=BUNDLE)
SYSTEM = "urn:oid:1.2.3"
Opened = Callable[..., FhirLink]


def to(url: str, **more: Any) -> FhirDestination:
    return FhirDestination.model_validate({"name": "ehr", "kind": "fhir", "url": url, "timeout_s": 2.0, **more})


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Serve a server, and make a link to it."""
    with ExitStack() as stack:

        def build(server: Server, **more: Any) -> FhirLink:
            link = link_to(to(stack.enter_context(serving(server)), **more), "CXR_NODE")
            assert isinstance(link, FhirLink)
            stack.callback(link.close)
            return link

        yield build


def send(link: FhirLink) -> str:
    return link.store(link.open([FILE])[0]).words


def refused(link: FhirLink) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        send(link)
    assert "CANARY" not in str(raised.value)
    return raised.value


def test_a_transaction_is_delivered_and_a_repeat_changes_nothing(opened: Opened) -> None:
    server = Server()
    link = opened(server)
    assert send(link) == "HTTP 200 created=1 of 1"
    assert send(link) == "HTTP 200 created=0 of 1"
    assert server.bodies[0] == server.bodies[1]
    assert server.targets == ["/fhir", "/fhir"]
    assert server.headers[0]["content-type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.parametrize(
    ("more", "entries", "subject"),
    [
        ({}, 1, {"type": "Patient", "identifier": {"value": "47|11"}}),
        (
            {"patient_system": SYSTEM}, 1,
            {"type": "Patient", "identifier": {"value": "47|11", "system": SYSTEM}},
        ),
        (
            {"patient": "search", "patient_system": SYSTEM}, 1,
            {"reference": f"Patient?identifier={SYSTEM}|47%5C%7C11"},
        ),
        ({"patient": "create", "patient_system": SYSTEM}, 2, {"reference": "urn:uuid:1"}),
    ],
)  # fmt: skip
def test_the_patient_is_told_as_the_destination_wants(
    opened: Opened, more: dict[str, str], entries: int, subject: Json
) -> None:
    server = Server()
    send(opened(server, **more))
    found = json.loads(server.bodies[0])["entry"]
    assert (len(found), found[-1]["resource"]["subject"]) == (entries, subject)
    assert (b"CANARY" in server.bodies[0]) == (entries == 2)
    if entries == 2:
        assert found[0]["request"]["ifNoneExist"] == f"identifier={SYSTEM}|47%5C%7C11"


@pytest.mark.parametrize("patient", ["search", "create"])
def test_a_patient_is_not_looked_up_by_a_number_alone(patient: str) -> None:
    there = {"name": "ehr", "kind": "fhir", "url": "http://127.0.0.1/fhir", "patient": patient}
    with pytest.raises(ConfigError, match="needs patient_system"):
        loader.parse({"spool": {"path": "/var/lib/cxr-node"}, "destinations": [there]})


@pytest.mark.parametrize(
    ("status", "codes", "permanent"),
    [
        (400, ("structure",), True), (422, ("invariant",), True), (413, (), True), (400, (), True),
        (400, ("lock-error",), False), (400, ("not-found",), False), (412, ("multiple-matches",), False),
        (404, ("not-found",), False), (409, ("conflict",), False), (403, ("forbidden",), False),
        (401, (), False), (500, ("exception",), False), (503, (), False), (301, (), False),
        (429, ("throttled",), False),
    ],
)  # fmt: skip
def test_a_refusal_is_permanent_or_not(opened: Opened, status: int, codes: tuple[str, ...], permanent: bool) -> None:
    error = refused(opened(Server(lambda _: (status, outcome(*codes), {}))))
    assert (error.permanent, error.answered) == (permanent, True)
    assert f"HTTP {status}" in str(error) and all(code in str(error) for code in codes)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>log in</html>", {"content-type": "text/html"}),
        (200, RESPONSE | {"entry": []}, {}),
        (200, RESPONSE | {"type": "batch-response", "entry": [{"response": {"status": "201"}}]}, {}),
        (200, RESPONSE | {"entry": [{"response": {"status": "400"}}]}, {}),
        (200, RESPONSE | {"entry": ["x"]}, {}),
        (200, b"[" * 100_000, {}),
        (200, b"\xff", {}),
        (202, b"", {}),
        (204, b"", {}),
    ],
)  # fmt: skip
def test_a_success_that_proves_nothing_is_repeated(
    opened: Opened, status: int, body: Any, headers: dict[str, str]
) -> None:
    error = refused(opened(Server(lambda _: (status, body, headers))))
    assert (error.permanent, error.answered) == (False, True)


def test_how_long_it_is_to_be_left_alone_is_handed_on(opened: Opened) -> None:
    assert refused(opened(Server(lambda _: (503, outcome(), {"retry-after": "7"})))).after_s == 7.0


def test_a_token_is_shown(opened: Opened, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc123\n")
    token.chmod(0o600)
    server = Server()
    send(opened(server, authentication={"kind": "bearer", "token": str(token)}))
    assert server.headers[0]["authorization"] == "Bearer abc123"


def test_a_probe_reads_what_the_server_can(opened: Opened) -> None:
    server = Server()
    assert opened(server).probe().endswith("/fhir answers as FHIR 4.0.1")
    assert (server.targets, server.bodies) == (["/fhir/metadata"], [])


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        (CAPABILITIES | {"fhirVersion": "3.0.2"}, "does not speak FHIR R4"),
        (CAPABILITIES | {"rest": [{"interaction": [{"code": "batch"}]}]}, "takes no transactions"),
        ({"resourceType": "Patient"}, "without a CapabilityStatement"),
        (b"hello", "without a CapabilityStatement"),
    ],
)
def test_a_probe_tells_what_is_no_such_server(opened: Opened, capabilities: Any, words: str) -> None:
    with pytest.raises(DeliveryError, match=words):
        opened(Server(capabilities=capabilities)).probe()


def test_nobody_there_is_unreachable() -> None:
    link = link_to(to(f"http://127.0.0.1:{peers.nobody().port}/fhir"), "CXR_NODE")
    with pytest.raises(UnreachableError):
        link.store(FILE)
    link.close()


def test_a_bundle_without_a_patient_is_sent_as_it_is() -> None:
    content = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [OBSERVATION]}).encode()
    assert fhir.addressed(content, to("http://127.0.0.1/fhir")) is content
