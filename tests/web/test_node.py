"""The node as processes: what they count is scraped, what they write is JSON, and neither names the patient."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cxr_node import resources
from cxr_node.config import loader
from cxr_node.errors import DeliveryError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.tools import send
from cxr_node.web.monitoring.metrics import Exposition
from tests.builders import part10, radiograph
from tests.chaos.node import ROLES, Node
from tests.node import peers
from tests.patience import wait_until
from tests.web.test_metrics import Labels, parsed

CANARY = "CANARY^METRICS"


def scraped(config: Path) -> tuple[dict[tuple[str, Labels], float], str]:
    settings = loader.load(config)
    ledger = Ledger.open(settings.spool.path)
    try:
        content = Exposition(settings, lambda: ledger).read()
    finally:
        ledger.close()
    return parsed(content), content.decode()


def one(found: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    return found.get((f"cxr_node_{name}", tuple(sorted(labels.items()))), 0.0)


def test_one_image_is_counted_on_its_whole_way(tmp_path: Path) -> None:
    image, archive = tmp_path / "image.dcm", peers.Archive()
    image.write_bytes(part10(radiograph(PatientName=CANARY, PatientID=CANARY)))
    with peers.listening(archive) as address:
        there = cast(Any, [SimpleNamespace(gets_objects=True, configured={"address": str(address)})])
        profile = resources.profile_folder("pneumonia-pediatric")
        with Node(tmp_path / "node", profile, there, web={}, log={"format": "json"}) as node:
            send.store([image], lambda _: None, node.address, "XR1")
            with pytest.raises(DeliveryError):
                send.store([image], lambda _: None, node.address.model_copy(update={"ae_title": "ELSE"}), "XR1")
            wait_until(lambda: one(scraped(node.config)[0], "turnaround_seconds_count") == 1, "the image is delivered")
            found, text = scraped(node.config)
            assert one(found, "role_up", role="work") == 1
    assert one(found, "instances_received_total", sender="XR1") == 1
    assert one(found, "associations_refused_total", cause="called-ae-title") == 1
    assert one(found, "delivery_attempts_total", destination="archive0", outcome="delivered") == 3
    for stage in ("read", "decode", "examine", "explain"):
        assert one(found, "stage_seconds_count", stage=stage) == 1
    assert sum(value for (name, _), value in found.items() if name == "cxr_node_verdicts_total") == 1
    assert one(found, "ledger_transaction_seconds_count") > 3
    assert one(found, "scrape_errors") == 0
    lines = {role: [json.loads(line) for line in node.log(role).splitlines()] for role in ROLES}
    assert all(line["role"] == role for role in ROLES for line in lines[role])
    (stored,) = [line for line in lines["receive"] if line["event"] == "stored"]
    assert (stored["instance"], stored["ae"]) == (1, "XR1")
    assert "CANARY" not in text + "".join(node.log(role) for role in ROLES)


def test_without_web_nothing_is_counted(tmp_path: Path) -> None:
    profile = resources.profile_folder("pneumonia-pediatric")
    with Node(
        tmp_path / "node",
        profile,
        cast(Any, [SimpleNamespace(gets_objects=True, configured={"address": str(peers.nobody())})]),
    ) as node:
        pass
    assert not (node.spool / "metrics").exists()
