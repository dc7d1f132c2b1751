"""Several machines, one ledger: the page, health, metrics and alerts of any of them speak of the whole node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.node.ledger import alerts as book
from cxr_node.node.ledger import destination_health, machines, queries
from cxr_node.node.ledger.duties import LEASE_S
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.process.supervisor import Presence
from cxr_node.web.monitoring import alert_loop
from cxr_node.web.monitoring.alert_loop import HOLD_S, AlertLoop
from cxr_node.web.monitoring.alerts import evaluate
from cxr_node.web.monitoring.metrics import Exposition
from cxr_node.web.monitoring.watch import Watch
from tests import postgres
from tests.node import workplace
from tests.node.certificates import Authority
from tests.node.ledgers import Clock
from tests.patience import eventually
from tests.web import pages, rows, site
from tests.web.sinks import WebHook
from tests.web.site import Site
from tests.web.test_metrics import parsed

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
PACS = "pacs"


@dataclass
class Machine:
    """One of several."""

    config: Config
    ledger: Ledger
    clock: Clock

    @property
    def name(self) -> str:
        return self.ledger.database.machine

    def runs(self, *roles: str) -> list[Presence]:
        """Processes that are ready."""
        present = [Presence(self.config.spool.path, role) for role in roles]
        for each in present:
            each.ready()
        self.tell()
        return present

    def tell(self) -> None:
        machines.tell(self.ledger, self.config.spool.path)

    def watch(self) -> Watch:
        return Watch(self.config, lambda: self.ledger)

    def loop(self) -> AlertLoop:
        return alert_loop.of_node(self.config, lambda: self.ledger)

    def metrics(self) -> dict[tuple[str, Any], float]:
        return parsed(Exposition(self.config, lambda: self.ledger).read())


@contextmanager
def machine(folder: Path, name: str, clock: Clock, **sections: Any) -> Iterator[Machine]:
    archive = {"name": PACS, "address": "PACS@127.0.0.1:4242"}
    config = workplace.config(folder / name, **{"destinations": [archive], "web": {}} | sections)
    with closing(Ledger.of_node(config)) as opened:
        yield Machine(config, Ledger(opened.database, clock), clock)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    section, clock = postgres.section(tmp_path), Clock(datetime.now(UTC))  # processes are dated by their files
    with (
        machine(tmp_path, "here", clock, ledger=section) as here,
        machine(tmp_path, "there", clock, ledger=section) as there,
    ):
        yield here, there


def keys(each: Machine, watch: Watch) -> set[str]:
    now = each.clock()
    return {alert.key for alert in evaluate(watch.look(now), each.config.alerts, now)}


def end(present: list[Presence]) -> None:
    for each in present:
        each.close()


def died(presence: Presence) -> None:
    presence.__exit__(ValueError, ValueError(), None)


def test_what_runs_elsewhere_is_not_missed_and_what_died_there_is(two: tuple[Machine, Machine]) -> None:
    here, there = two
    watch = here.watch()
    own, others = here.runs("receive", "work"), there.runs("receive", "work", "deliver")
    assert keys(here, watch) == set()
    here.clock.forward(50)
    assert there.watch().look(there.clock()).stopped_since == {}, "and it told"
    died(others.pop(1))
    there.tell()
    here.clock.forward(50)
    there.tell()
    here.clock.forward(20)
    assert keys(here, watch) == {f"stopped:work on {there.name}"}
    end(own[1:])
    here.clock.forward(30)
    there.tell()
    assert keys(here, watch) == {f"stopped:work on {there.name}", "stopped:work"}, "by nobody now"
    here.clock.forward(machines.SILENT_AFTER_S + 1)
    assert keys(here, watch) == {"stopped:work", "stopped:deliver", f"stopped:{there.name}"}
    (told,) = [
        each
        for each in evaluate(watch.look(here.clock()), here.config.alerts, here.clock())
        if "of the" in each.sentence
    ]
    assert told.sentence.startswith(f"nothing has been heard of the machine {there.name} since ")
    end(own[:1] + others)


def test_a_machine_that_was_stopped_is_not_missed(two: tuple[Machine, Machine]) -> None:
    here, there = two
    watch, own, others = here.watch(), here.runs("receive", "work", "deliver"), there.runs("receive", "work")
    end(others)
    there.tell()
    here.clock.forward(600)
    assert keys(here, watch) == set()
    end(own)


def test_disks_certificates_and_audit_messages_are_those_of_all_machines(tmp_path: Path) -> None:
    """Here and there by the same certificate; only there is a mark for the disk, and messages that wait."""
    section, clock = postgres.section(tmp_path), Clock()
    tls = Authority(tmp_path, "hospital").issue("node", hosts=["127.0.0.1"]).tls()
    common: dict[str, Any] = {"ledger": section, "listen": {"tls": tls}, "alerts": {"certificate_days": 36500}}
    with machine(tmp_path, "here", clock, **common) as here, machine(tmp_path, "there", clock, **common) as there:
        own = here.runs("receive", "work", "deliver")
        there.watch().look(clock())
        found = {key for key in keys(here, here.watch()) if not key.startswith("stopped")}
        assert found == {f"certificate:listen of {each.name}" for each in (here, there)}
        seen = here.watch().look(clock())
        assert seen.free_bytes.keys() == {f"spool of {each.name}" for each in (here, there)}
        told = evaluate(
            seen.__class__(free_bytes={f"spool of {there.name}": 0}, watermark_bytes=1), here.config.alerts, clock()
        )
        assert [each.sentence for each in told] == [
            f"the spool of {there.name} has 0 MiB free; below 0 MiB every image is refused"
        ]
        waits = machines.Watched(certificate_ends={}, audit_since=clock())
        machines.tell(there.ledger, there.config.spool.path, waits)
        clock.forward(2 * 3600)
        assert f"audit-backlog:audit of {there.name}" in keys(here, here.watch()), "though it is not heard of any more"
        end(own)


def test_of_two_machines_one_tells_and_the_other_goes_on_where_it_dies(
    two: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_loop, "_FIRST_DELAY_S", 0.0)
    here, there = two
    processes = here.runs("receive", "work", "deliver")
    with WebHook(tmp_path) as hook:
        for each in two:
            to = each.config.alerts.model_copy(update={"to": (hook.file,)})
            each.config = each.config.model_copy(update={"alerts": to})
        leader, other = here.loop(), there.loop()

        def told(*loops: AlertLoop) -> bool:
            def turned() -> bool:
                for loop in loops:
                    loop.tell(here.clock())
                open_alerts = book.open_alerts(here.ledger)
                return all(row.announced_at is not None and row.ended_at is None for row in open_alerts)

            return eventually(turned)

        destination_health.down(here.ledger, PACS, 30.0, "no answer")
        here.clock.forward(3600)
        here.tell(), there.tell()
        for loop in (leader, other):
            loop.evaluate(here.clock())
        assert f"destination-down:{PACS}" in other.lasting, "for the page of that machine"
        assert told(leader, other)
        (begun,) = hook.taken
        assert begun.count(f"Destination {PACS}") == 1
        destination_health.answered(here.ledger, PACS)
        here.clock.forward(LEASE_S)  # the leader is dead
        monkeypatch.setattr(alert_loop, "_KEPT_S", 0.0)
        other.evaluate(here.clock())
        here.clock.forward(HOLD_S)
        here.tell()
        other.evaluate(here.clock())
        assert told(other)
        assert [text.count(f"Ended: destination-down {PACS}") for text in hook.taken] == [0, 1]
        leader.evaluate(here.clock())  # it was halted, and comes back
        leader.tell(here.clock())
        other.tell(here.clock())
        assert not any(channel.is_sending for loop in (leader, other) for channel in loop._channels)
        assert len(hook.taken) == 2
    end(processes)


def test_metrics_name_the_machine_where_it_matters(two: tuple[Machine, Machine]) -> None:
    here, there = two
    processes = here.runs("receive") + there.runs("work", "deliver")
    found = here.metrics()
    assert [found["cxr_node_role_up", (("role", role),)] for role in ("receive", "work", "deliver")] == [1, 1, 1]
    running = {labels: value for (name, labels), value in found.items() if name == "cxr_node_process_up"}
    assert running == {
        (("machine", here.name), ("role", "receive")): 1,
        (("machine", there.name), ("role", "work")): 1,
        (("machine", there.name), ("role", "deliver")): 1,
    }
    here.clock.forward(machines.SILENT_AFTER_S + 1)
    found = here.metrics()
    assert [found["cxr_node_role_up", (("role", role),)] for role in ("receive", "work", "deliver")] == [1, 0, 0]
    assert found["cxr_node_machine_up", (("machine", there.name),)] == 0
    assert found["cxr_node_process_up", (("machine", there.name), ("role", "work"))] == 0
    assert found["cxr_node_scrape_errors", ()] == 0
    end(processes)


def test_a_share_has_its_own_room(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    spool = {"path": str(tmp_path / "spool"), "min_free_mib": 0, "store": {"kind": "posix", "path": str(share)}}
    with machine(tmp_path, "spool", Clock(), spool=spool) as one:
        assert one.metrics()["cxr_node_store_free_bytes", ()] > 0
        seen = one.watch().look(one.clock())
        assert seen.free_bytes.keys() == {"spool", "store"}


def test_a_page_that_was_stopped_is_not_missed(tmp_path: Path) -> None:
    section = postgres.section(tmp_path)
    with site.opened(tmp_path, users=False, ledger=section) as found:
        assert found.visitor().get("/").status_code == 200
        name = found.ledger.database.machine
    with machine(tmp_path, "here", Clock(datetime.now(UTC)), ledger=section) as here:
        here.clock.forward(machines.SILENT_AFTER_S + 1)
        (seen,) = [each for each in machines.look(here.ledger, here.config.spool.path, ("web",)) if each.name == name]
        assert (seen.is_silent, seen.has_left) == (True, True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    with rows.opened(folder, odd=(), sections={"ledger": postgres.section(folder)}) as found:
        yield found


@pytest.fixture
def there(page: Site, tmp_path: Path) -> Iterator[Machine]:
    """Another machine of the page's node; it runs `work`."""
    config = page.config.model_copy(
        update={"spool": page.config.spool.model_copy(update={"path": tmp_path / "there"}), "web": None}
    )
    with closing(Ledger.of_node(config)) as opened:
        other = Machine(config, opened, Clock(opened.now()))
        processes = other.runs("work")
        yield other
        end(processes)


def test_each_page_is_of_the_whole_node(page: Site, there: Machine) -> None:
    visitor, here = page.operator(), page.ledger.database.machine
    today = visitor.get("/").text
    system = visitor.get("/system").text
    for text in (today, system):
        assert not pages.faults(text)
        assert {here, there.name} <= set(re.findall(r"[\w.-]+-[0-9a-f]{8}", pages.texts(text)))
    assert f"Spool of {there.name}" in pages.texts(today)
    assert "work runs" in pages.texts(today), "on the other machine"
    assert f"{here} (this one)" in pages.texts(system)
    assert f"of this machine, cxr-node@{here}, the newest first" in pages.texts(system)
    assert f'AuditSourceID="cxr-node@{here}"' in page.audited()
    study = visitor.submit("/study", key="#1").text
    assert not pages.faults(study)
    assert "Image #1: DELIVERED" in pages.texts(study)
    assert visitor.get("/quality").status_code == 200
    queue = visitor.get("/queue?stage=dead").text
    assert not pages.faults(queue)
    assert "Dead: 2 images" in pages.texts(queue)


def test_what_is_done_on_the_page_of_one_machine_is_done_for_the_other(page: Site, there: Machine) -> None:
    answer = page.operator().submit("/queue?stage=dead", what="retry", number=["2"])
    assert "1 back in the queue." in pages.texts(answer.text)
    (story,) = queries.trace(there.ledger, "instance=2")
    assert story.instance.state is InstanceState.RECEIVED
    assert there.ledger.claim_instance(f"{there.name}/work-0", 60.0) is not None


def test_health_of_a_machine_and_of_the_node(page: Site, there: Machine) -> None:
    """A load balancer must not send anybody to a machine because another one receives."""
    processes = there.runs("receive", "deliver")
    visitor = page.visitor()
    here = {each["check"]: each["result"] for each in visitor.get("/health/ready").json()["checks"]}
    assert [here[role] for role in ("receive", "work", "deliver")] == ["Unhealthy"] * 3
    assert visitor.get("/health/ready/receive").status_code == 503
    node = visitor.get("/health/node")
    assert (node.status_code, {each["check"] for each in node.json()["checks"]}) == (
        200,
        {"ledger", "machines", "receive", "work", "deliver"},
    )
    end(processes)
    there.tell()
    node = visitor.get("/health/node")
    assert (node.status_code, [each["check"] for each in node.json()["checks"] if each["result"] != "Healthy"]) == (
        503,
        ["receive", "deliver"],
    )
