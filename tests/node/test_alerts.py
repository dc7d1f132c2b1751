"""Alerts outlive the process that began them, and none is forgotten before people were told."""

from __future__ import annotations

from pathlib import Path

from cxr_node.node.ledger import alerts
from cxr_node.node.ledger.ledger import Ledger
from tests.node.ledgers import Clock

KEY = "down:pacs"


def test_an_alert_is_told_once_and_stays_until_its_end_was_told(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, now=clock)
    began = clock()
    assert alerts.begin_alert(ledger, KEY, "down", "pacs", began)
    assert not alerts.begin_alert(ledger, KEY, "down", "pacs", began), "it lasts already"
    ledger.close()

    ledger = Ledger.open(tmp_path, now=clock)  # its announcement was not sent before the process ended
    (one,) = alerts.open_alerts(ledger)
    assert one == alerts.Alert(key=KEY, rule="down", subject="pacs", began_at=began, announced_at=None, ended_at=None)
    clock.forward(60)
    told = clock()
    alerts.mark_announced(ledger, KEY, told)
    clock.forward(60)
    alerts.mark_announced(ledger, KEY, clock())
    assert alerts.open_alerts(ledger)[0].announced_at == told, "the first announcement counts"

    alerts.forget_alert(ledger, KEY)
    assert len(alerts.open_alerts(ledger)) == 1, "one that lasts is not forgotten"
    alerts.end_alert(ledger, KEY, clock())
    ended = clock()
    clock.forward(60)
    alerts.end_alert(ledger, KEY, clock())
    assert [(each.began_at, each.ended_at) for each in alerts.open_alerts(ledger)] == [(began, ended)]
    alerts.forget_alert(ledger, KEY)
    assert alerts.open_alerts(ledger) == ()
    ledger.close()


def test_what_begins_again_before_its_end_was_told_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, now=clock)
    began = clock()
    alerts.begin_alert(ledger, KEY, "down", "pacs", began)
    alerts.mark_announced(ledger, KEY, began)
    alerts.end_alert(ledger, KEY, clock())
    clock.forward(5)
    assert alerts.begin_alert(ledger, KEY, "down", "pacs", clock())
    (one,) = alerts.open_alerts(ledger)
    assert (one.began_at, one.announced_at, one.ended_at) == (began, began, None)
    ledger.close()


def test_alerts_of_several_subjects_stand_side_by_side_the_oldest_first(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, now=clock)
    for name in ("pacs", "archive"):
        alerts.begin_alert(ledger, f"down:{name}", "down", name, clock())
        clock.forward(1)
    alerts.end_alert(ledger, "down:pacs", clock())
    alerts.forget_alert(ledger, "down:pacs")
    assert [each.subject for each in alerts.open_alerts(ledger)] == ["archive"]
    ledger.close()
