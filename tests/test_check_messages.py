"""`cxr-node check` asks whoever gets messages, and sends none."""

from __future__ import annotations

from pathlib import Path

from cxr_node.config import loader
from cxr_node.diagnose import check
from tests.node import fhir_server, mllp_peer, peers
from tests.node.certificates import Authority
from tests.node.fhir_server import Server
from tests.node.mllp_peer import Receiver


def test_each_is_asked_and_gets_no_message(tmp_path: Path) -> None:
    ca, receiver, server = Authority(tmp_path), Receiver(), Server()
    tls = ca.issue("node").tls()
    with mllp_peer.receiving(receiver, ca.issue("ris").server()) as port, fhir_server.serving(server) as url:
        destinations = [
            {"name": "ris", "kind": "hl7", "address": f"127.0.0.1:{port}", "tls": tls},
            {"name": "away", "kind": "hl7", "address": f"127.0.0.1:{peers.nobody().port}"},
            {"name": "ehr", "kind": "fhir", "url": url},
        ]
        config = loader.parse({"spool": {"path": str(tmp_path / "spool")}, "destinations": destinations})
        told = {each.subject: each for each in check.check(config, "node.yaml") if each.subject.startswith("dest")}
    assert (told["destination ris"].ok, told["destination away"].ok, told["destination ehr"].ok) == (True, False, True)
    assert told["destination ris"].figure == f"mllps://127.0.0.1:{port} takes the connection over TLS"
    assert told["destination away"].figure.endswith("connection refused")
    assert told["destination ehr"].figure == f"{url} answers as FHIR 4.0.1"
    assert told["destination ris tls CA"].ok
    assert receiver.messages == server.bodies == []
