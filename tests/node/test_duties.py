"""What one of several machines does for all: one at a time, another one after its lease, and nothing by the loser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.node.deliver import retention
from cxr_node.node.deliver.sweeper import Sweeper
from cxr_node.node.ledger import duties
from cxr_node.node.ledger.duties import LEASE_S, Duty, Held, LostDutyError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.receive import recovery, server
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area, Spool
from tests import postgres
from tests.node import workplace
from tests.node.ledgers import Clock
from tests.patience import PATIENCE_S

IMAGES = 25


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, engine: dict[str, Any], clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger.of_node(workplace.config(tmp_path / "spool", **engine))) as opened:
        yield Ledger(opened.database, clock)


def test_a_duty_is_one_holders_until_its_lease_is_over(ledger: Ledger, clock: Clock) -> None:
    held = duties.take(ledger, Duty.SWEEP, "here")
    assert isinstance(held, Held)
    assert duties.take(ledger, Duty.SWEEP, "there") == LEASE_S
    assert isinstance(duties.take(ledger, Duty.ALERTS, "there"), Held), "another duty"
    clock.forward(LEASE_S - 1)
    duties.require_still(ledger, held)  # and for another lease from now on
    clock.forward(LEASE_S - 1)
    assert duties.take(ledger, Duty.SWEEP, "there") == 1.0
    clock.forward(1)
    taken = duties.take(ledger, Duty.SWEEP, "there")
    assert isinstance(taken, Held)
    with pytest.raises(LostDutyError, match="another process does sweep now"):
        duties.require_still(ledger, held)
    duties.done(ledger, held)  # it has nothing to give back
    duties.require_still(ledger, taken)


def test_what_was_done_a_moment_ago_is_not_done_again(ledger: Ledger, clock: Clock) -> None:
    held = duties.take(ledger, Duty.SWEEP, "here", 3600.0)
    assert isinstance(held, Held)
    duties.done(ledger, held)
    clock.forward(600)
    assert duties.take(ledger, Duty.SWEEP, "there", 3600.0) == 3000.0
    assert isinstance(duties.take(ledger, Duty.SWEEP, "there", 600.0), Held)


def test_a_process_that_starts_again_takes_its_duty_back_at_once(ledger: Ledger) -> None:
    before, after = (duties.take(ledger, Duty.SWEEP, "here/deliver-0") for _ in range(2))
    assert isinstance(before, Held) and isinstance(after, Held)
    with pytest.raises(LostDutyError):
        duties.require_still(ledger, before)
    duties.require_still(ledger, after)


def test_a_clock_that_was_put_back_blocks_nobody(ledger: Ledger, clock: Clock) -> None:
    held = duties.take(ledger, Duty.SWEEP, "here")
    assert isinstance(held, Held)
    clock.forward(-timedelta(days=1).total_seconds())
    taken = duties.take(ledger, Duty.SWEEP, "there")
    assert isinstance(taken, Held)
    duties.done(ledger, taken)
    clock.forward(-timedelta(days=1).total_seconds())
    assert isinstance(duties.take(ledger, Duty.SWEEP, "here", 3600.0), Held)


class Machine:
    """One of several that share a ledger and a store."""

    def __init__(self, folder: Path, name: str, share: Path, section: dict[str, str]) -> None:
        spool = {"path": str(folder / name), "min_free_mib": 0, "store": {"kind": "posix", "path": str(share)}}
        self.config: Config = workplace.config(folder / name, spool=spool, ledger=section)
        self.spool = open_spool(self.config.spool)
        self.spool.store.prepare()
        opened = Ledger.of_node(self.config)
        self.clock = Clock(opened.now() + timedelta(days=31))
        self.ledger = Ledger(opened.database, self.clock)
        self.owner = f"{opened.database.machine}/deliver-0"

    def sweeper(self) -> Sweeper:
        return Sweeper(self.ledger, self.spool, self.config, self.owner)

    def settle(self, *numbers: int) -> None:
        """Images that were rejected a month ago."""
        workplace.receive(self.config, *numbers)
        with closing(Ledger.of_node(self.config)) as today:
            judging = workplace.worker(self.config, today, lambda _, *more: workplace.judge(b"", *more))
            while judging.do_one():
                pass


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    if postgres.programs() is None:
        pytest.skip(postgres.HINT)
    share, section = tmp_path / "share", postgres.section(tmp_path)
    share.mkdir()
    found = [Machine(tmp_path, name, share, section) for name in ("here", "there")]
    yield found
    for each in found:
        each.ledger.close()


class Deleted:
    """What was deleted of a store, by which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[tuple[str, str]] = []
        genuine = Spool.delete

        def delete(spool: Spool, area: Area, sha256: str) -> None:
            self.found.append((threading.current_thread().name, sha256))
            genuine(spool, area, sha256)

        monkeypatch.setattr(Spool, "delete", delete)


def test_machines_that_sweep_at_once_delete_each_image_once(
    machines: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    here.settle(*range(1, IMAGES + 1))
    deleted, met = Deleted(monkeypatch), threading.Barrier(2)

    def sweep(each: Machine) -> None:
        sweeping = each.sweeper()
        met.wait(PATIENCE_S)
        sweeping.turn()

    threads = [threading.Thread(target=sweep, args=(each,), name=each.owner) for each in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(deleted.found) == len({digest for _, digest in deleted.found}) == IMAGES
    assert len({name for name, _ in deleted.found}) == 1, "both swept"
    assert not list(there.spool.digests(Area.OBJECTS))


def test_the_sweepers_machine_dies_and_another_goes_on_after_the_lease(
    machines: list[Machine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = machines
    here.settle(*range(1, IMAGES + 1))
    purged, genuine = list[int](), retention._purge

    def dying(*arguments: Any) -> int:
        if purged:
            raise SystemExit("the machine is gone")
        purged.append(genuine(*arguments))
        return purged[0]

    with monkeypatch.context() as patched:
        patched.setattr(retention, "_purge", dying)
        with pytest.raises(SystemExit):
            here.sweeper().turn()
    deleted, going_on = Deleted(monkeypatch), there.sweeper()
    going_on.turn()
    assert not deleted.found, "the lease of the dead one lasts"
    there.clock.forward(LEASE_S)
    going_on._due_at = 0.0
    going_on.turn()
    assert len(deleted.found) == IMAGES - purged[0] > 0
    assert "retention put off" not in caplog.text


def test_a_machine_that_was_halted_deletes_nothing_that_came_again(
    machines: list[Machine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It slept over its lease, the other swept, and the sender sent an image again: acknowledged, so it stays."""
    here, there = machines
    here.settle(1)
    genuine = retention._purge

    def halted(*arguments: Any) -> int:
        monkeypatch.setattr(retention, "_purge", genuine)
        there.clock.forward(LEASE_S)
        there.sweeper().turn()
        assert not list(there.spool.digests(Area.OBJECTS))
        workplace.receive(there.config, 1)
        return genuine(*arguments)

    monkeypatch.setattr(retention, "_purge", halted)
    here.sweeper().turn()
    assert list(there.spool.digests(Area.OBJECTS)) == [workplace.digest(b"radiograph 1")]
    assert "retention put off: ledger: another process does sweep now" in caplog.text


def test_of_machines_that_start_at_once_one_looks_for_orphans(
    machines: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    here.spool.store_result(b"nobody's")
    monkeypatch.setattr(recovery.time, "time", lambda: time.time_ns() / 1e9 + 90_000)
    held = duties.take(there.ledger, Duty.ORPHANS, "there/receive")
    assert isinstance(held, Held)
    server._tidy(here.spool, here.ledger, header.identify, lambda: None)
    assert list(here.spool.digests(Area.RESULTS))
    duties.done(there.ledger, held)
    server._tidy(here.spool, here.ledger, header.identify, lambda: None)
    assert not list(here.spool.digests(Area.RESULTS))
