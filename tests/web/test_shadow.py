"""What is kept and not sent stands on Today, in Queue and in Study, in the word SHADOW, and is sent from there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_node.node.ledger import queries, shadow
from cxr_node.node.ledger.states import InstanceState
from cxr_node.web.monitoring.metrics import Exposition
from tests.node.ledgers import finding, results
from tests.web import pages, rows, site
from tests.web.site import Site


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Site]:
    """Two images whose results are in shadow at one destination, and due at the other."""
    told = [
        {"name": "pacs", "address": "PACS@127.0.0.1:1", "report_per": "image", "release": "shadow"},
        {"name": "ward", "address": "WARD@127.0.0.1:1", "report_per": "image", "release_share": 0.5},
    ]
    with site.opened(tmp_path, destinations=told) as found:
        wishes = {"pacs": replace(found.config.wishes["pacs"])}
        for number in (1, 2):
            rows.receive(found.ledger, number)
            job = found.ledger.claim_instance("worker", 600.0)
            assert job is not None
            assert found.ledger.settle_reported(job, finding(), results(number), wishes)
        yield found


def test_it_is_said_plainly_and_a_viewer_has_no_button(page: Site) -> None:
    viewer = page.viewer()
    today = viewer.get("/").text
    assert not pages.faults(today)
    words = " ".join(pages.texts(today).split())
    assert "pacs SHADOW: its results are kept and not sent; 6 objects kept, the oldest for" in words
    assert "ward SHADOW: results of 50 % of studies are sent, those of the others are kept" in words
    queue = viewer.get("/queue?stage=shadow&destination=pacs").text
    assert not pages.faults(queue)
    assert "Shadow: 2 images" in pages.texts(queue)
    assert "shadow-send" not in queue
    study = pages.texts(viewer.submit("/study", key="#1").text)
    assert "Image #1: SHADOW" in study
    assert "kept, not sent" in study
    assert viewer.submit("/queue?stage=shadow", what="shadow-send", number=["1"]).status_code == 403
    metrics = Exposition(page.config, lambda: page.ledger).read().decode()
    assert 'cxr_node_destination_live_ratio{destination="pacs"} 0.0' in metrics
    assert 'cxr_node_deliveries{destination="pacs",state="SHADOW"} 6.0' in metrics


def test_one_is_sent_and_one_expires_and_the_trail_says_who_did(page: Site) -> None:
    operator = page.operator()
    answer = operator.submit("/queue?stage=shadow", what="shadow-send", number=["1"])
    assert "3 objects are due at pacs now." in answer.text
    answer = operator.submit("/study/act", of="2", number=["2"], what="shadow-expire")
    assert "3 objects for pacs are expired." in answer.text
    states = [queries.trace(page.ledger, f"#{number}")[0].instance.state for number in (1, 2)]
    assert states == [InstanceState.REPORTED, InstanceState.SET_ASIDE]
    assert shadow.look(page.ledger) == {}
    trail = page.audited()
    assert "sends what is in shadow of the studies of 1 image (#1)" in trail
    assert "lets expire what is in shadow of the studies of 1 image (#2)" in trail
