"""What was too late stands on Today, in Queue and in Study, in words, and can be sent after all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.states import InstanceState, OwnReason
from tests.web import pages, rows
from tests.web.site import Site

KEPT = "kept, not sent, after 61 min"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Site]:
    """Image 7 is late at one destination and has reached the other; 5 is late at one and on its way to the other."""
    with rows.opened(tmp_path) as found:
        with found.ledger.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM holds")
        while (job := found.ledger.claim_delivery("pacs", "courier", 60.0)) is not None:
            assert found.ledger.settle_unsent(job, OwnReason.TOO_LATE, KEPT)
        while (job := found.ledger.claim_delivery("second", "courier", 60.0)) is not None:
            assert job.instance_id == 7 or found.ledger.postpone(job, delay_s=99.0, status=None, detail="no answer")
            assert job.instance_id == 5 or found.ledger.settle_delivered(job, 0)
        yield found


def test_it_is_counted_listed_and_told_in_words(page: Site) -> None:
    viewer = page.viewer()
    today = viewer.get("/").text
    assert "Too late 6 results kept, not sent" in " ".join(pages.texts(today).split())
    address = "/queue?stage=set-aside&amp;reason=too-late&amp;destination=pacs"
    assert address in today
    queue = pages.texts(viewer.get("/queue?stage=set-aside&reason=too-late").text)
    assert "Set aside: 1 image" in queue
    assert f"too late - {KEPT}" in queue
    study = pages.texts(viewer.submit("/study", key="#7").text)
    assert "Image #7: SET_ASIDE" in study
    assert f"too late; {KEPT}" in study
    assert f"report to pacs: {KEPT}" in study


def test_no_operator_chooses_it_and_retry_undoes_it(page: Site) -> None:
    operator = page.operator()
    shown = operator.get("/queue?stage=dead").text
    assert 'option value="duplicate"' in shown
    assert 'option value="too-late"' not in shown
    assert operator.submit("/queue?stage=dead", what="set-aside", number=["2"], reason="too-late").status_code == 422
    operator.submit("/study/act", of="7", number=["7"], what="retry")
    (story,) = queries.trace(page.ledger, "#7")
    assert story.instance.state is InstanceState.REPORTED
    assert {row.reason for row in story.deliveries} == {None}
    assert queries.late_deliveries(page.ledger) == {"pacs": 3}
