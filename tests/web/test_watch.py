"""One look at the node: what the rules need is read from ledger, disk, certificates and audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cxr_node.config import loader
from cxr_node.node.audit import recorder, trail
from cxr_node.node.audit.recorder import trail_folder
from cxr_node.node.ledger import destination_health, holds, listing
from cxr_node.web.monitoring import facts
from cxr_node.web.monitoring.alerts import Rule, evaluate
from cxr_node.web.monitoring.watch import Watch
from tests.node.certificates import Authority
from tests.web.ledgers import PACS, Node, node


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path / "spool", results={"time_zone": "UTC"}) as found:
        yield found


def keys(made: Node, watch: Watch) -> set[str]:
    now = made.clock()
    return {alert.key for alert in evaluate(watch.look(now), made.config.alerts, now)} - {"disk:spool"}


def two_weeks(made: Node) -> None:
    """A device that sends all day, twice an hour; one image in ten is refused."""
    for half_hour in range(14 * 48):
        (made.reject if half_hour % 10 == 0 else made.report)("XR1")
        made.clock.forward(1800)
    made.deliver()


def test_a_node_that_works_as_always_is_well_and_one_that_does_not_is_not(made: Node) -> None:
    two_weeks(made)
    seen = Watch(made.config, lambda: made.ledger).look(made.clock())
    assert seen.silences["XR1"].gap_s == 1800
    assert (seen.rejections["XR1"].few_before, seen.rejections["XR1"].of_before) == (63, 624)
    assert keys(made, Watch(made.config, lambda: made.ledger)) == set()
    for _ in range(30):
        made.reject("XR1")
    made.clock.forward(5 * 1800 + 1)
    destination_health.down(made.ledger, PACS, 30.0, "no answer")
    made.kill("XR1")
    made.clock.forward(600)
    made.report("XR2")
    made.receive("XR2")
    made.clock.forward(5 * 1800)
    found = keys(made, Watch(made.config, lambda: made.ledger))
    assert found == {"rejections:XR1", "sender-quiet:XR1", f"destination-down:{PACS}", "dead:fault", "waiting:work"}


def test_a_study_that_is_not_reported_is_missed_and_one_that_cannot_be_is_said(made: Node) -> None:
    watch = Watch(made.config, lambda: made.ledger)
    made.judge()
    made.clock.forward(made.config.study.max_wait_s + made.config.alerts.waiting_s - 1)
    assert keys(made, watch) == set()
    made.clock.forward(2)
    assert keys(made, watch) == {"waiting:study"}
    made.fail()
    assert keys(made, watch) == {"dead:study"}, "one alert for a study, not one for its images too"


def test_a_destination_that_somebody_holds_is_not_missed(made: Node) -> None:
    made.report()
    destination_health.down(made.ledger, PACS, 30.0, "no answer")
    made.clock.forward(1000)
    watch = Watch(made.config, lambda: made.ledger)
    assert f"destination-down:{PACS}" in keys(made, watch)
    holds.hold(made.ledger, PACS, "somebody")
    assert not any(PACS in key for key in keys(made, watch))


def test_processes_are_missed_only_after_a_minute(made: Node) -> None:
    watch = Watch(made.config, lambda: made.ledger)
    assert not any(key.startswith("stopped") for key in keys(made, watch))
    made.clock.forward(61)
    assert {"stopped:receive", "stopped:work", "stopped:deliver"} <= keys(made, watch)


def test_a_certificate_that_cannot_be_read_hides_nothing_else(
    made: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = Authority(tmp_path, "hospital").issue("node", hosts=["127.0.0.1"])
    tls = shown.tls()
    content = {"spool": {"path": str(made.config.spool.path)}, "listen": {"tls": tls}}
    watch = Watch(loader.parse(content), lambda: made.ledger)
    made.kill()
    assert set(watch.look(made.clock()).certificate_ends) == {"listen"}
    Path(str(tls["certificate"])).unlink()
    for _ in range(2):
        seen = watch.look(made.clock())
    assert seen.unread == {Rule.CERTIFICATE}
    assert seen.dead == {"fault": 1}
    assert caplog.text.count("alerts not looked at rule=certificate") == 1


def test_audit_messages_wait_for_their_collector(made: Node, tmp_path: Path) -> None:
    shown = Authority(tmp_path, "hospital").issue("node", hosts=["127.0.0.1"])
    content = {
        "spool": {"path": str(made.config.spool.path)},
        "audit": {"syslog": {"host": "127.0.0.1", "port": 1, "tls": shown.tls()}},
    }
    config = loader.parse(content)
    with recorder.recording(config, "receive"):
        pass  # its start and its end
    waiting = trail.backlog(trail_folder(config))
    assert waiting.nr_bytes > 0
    assert waiting.since is not None
    late = waiting.since + timedelta(hours=2)
    seen = Watch(config, lambda: made.ledger).look(made.clock())
    assert seen.audit_since == {"audit": waiting.since}
    assert "audit-backlog:audit" in {alert.key for alert in evaluate(seen, config.alerts, late)}
    folder = trail_folder(config)
    folder.move_cursor({path.name: path.stat().st_size for path in folder.segments()})
    assert trail.backlog(folder) == trail.Backlog(nr_bytes=0, since=None)


def test_abstentions_are_counted_by_profile_and_judged_by_its_own_band(made: Node) -> None:
    for _ in range(3):
        made.report()
    assert listing.abstentions(made.ledger, made.clock() - timedelta(days=1)) == {"test 1": (0, 3)}
    assert not Watch(made.config, lambda: made.ledger).look(made.clock()).abstentions, "no configured profile's"
    children, adults = facts.profiles(made.config)
    low, high = children.abstention or (0.0, 0.0)
    assert 0.0 < low < high < 0.5
    assert adults.abstention is None, "its card predicts nothing"
