"""Processes of other machines are woken through the server, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.node.ledger import wake as waking
from cxr_node.node.ledger.lease_keeper import worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.wake import listening, wake
from cxr_node.node.process import machine
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.work import worker
from tests import postgres
from tests.node import workplace
from tests.node.ledgers import Clock, digest, origin, reference
from tests.patience import PATIENCE_S, eventually

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Config, Config]:
    """Two spools, one ledger."""
    section = postgres.section(tmp_path)
    here, there = (workplace.config(tmp_path / name, ledger=section) for name in ("here", "there"))
    return here, there


@contextmanager
def waiting(config: Config, role: Role) -> Iterator[Wakeup]:
    """A process of that role that sleeps, and listens already."""
    path = config.spool.path
    with (
        closing(Ledger.of_node(config)) as ledger,
        closing(Wakeup(path, role)) as wakeup,
        listening(ledger, path, role),
    ):
        assert wakeup.wait(PATIENCE_S), "whoever begins to listen looks once"
        yield wakeup


def test_another_machine_is_woken(machines: tuple[Config, Config]) -> None:
    here, there = machines
    with waiting(there, Role.WORK) as work, waiting(there, Role.DELIVER) as deliver:
        with closing(Ledger.of_node(here)) as ledger:
            wake(ledger, here.spool.path, Role.WORK)
            assert work.wait(PATIENCE_S)
        assert not deliver.wait(0.2), "it is another role's"


def test_a_command_that_ends_at_once_has_told(machines: tuple[Config, Config]) -> None:
    here, there = machines
    with waiting(there, Role.DELIVER) as deliver:
        with closing(Ledger.of_node(here)) as ledger:
            wake(ledger, here.spool.path, Role.DELIVER)
        assert deliver.wait(PATIENCE_S)


def test_this_machine_is_woken_once(machines: tuple[Config, Config]) -> None:
    here, there = machines
    with (
        waiting(here, Role.WORK) as mine,
        waiting(there, Role.WORK) as other,
        closing(Ledger.of_node(here)) as ledger,
    ):
        wake(ledger, here.spool.path, Role.WORK)
        assert mine.wait(0)
        assert other.wait(PATIENCE_S)
        assert not mine.wait(0.1), "by its datagram, and by its own notification"


def test_who_listens_does_so_again_after_a_break(
    machines: tuple[Config, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "_AGAIN_S", 0.05)
    here, there = machines
    with waiting(there, Role.WORK) as work, closing(Ledger.of_node(here)) as ledger:
        with postgres.past_the_node(str(here.ledger.url)) as connection:
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            )
        assert work.wait(PATIENCE_S), "it looks for what was told meanwhile"
        wake(ledger, here.spool.path, Role.WORK)
        assert work.wait(PATIENCE_S)


def test_nobody_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    with postgres.server() as server:
        config = workplace.config(tmp_path / "spool", ledger=postgres.section(tmp_path, server.url()))
        ledger = Ledger.of_node(config)
        server.stop()
        begun = time.monotonic()
        for _ in range(100):  # a second for each would be longer
            wake(ledger, config.spool.path, Role.WORK)
        assert time.monotonic() - begun < PATIENCE_S
        ledger.close()


def test_an_image_that_another_machine_received_is_judged_at_once(
    machines: tuple[Config, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the worker would look by itself."""
    monkeypatch.setattr(worker, "LOOK_AFTER_S", 10 * PATIENCE_S)
    here, there = machines
    clock, stop = Clock(), threading.Event()
    working = threading.Thread(target=worker.run, args=(there, workplace.analyser, stop))
    with closing(Ledger.of_node(here)) as ledger:
        working.start()
        for number in (1, 2):
            ledger.add(reference(number), origin(clock), digest(number), 1)  # its bytes are elsewhere: DEAD
            wake(ledger, here.spool.path, Role.WORK)
            assert eventually(lambda n=number: [state for state, _ in workplace.states(here)] == ["DEAD"] * n)
        stop.set()
        working.join(PATIENCE_S)


def test_a_machine_frees_what_its_own_dead_held_and_nothing_of_others(machines: tuple[Config, Config]) -> None:
    """Whatever their hosts are called: these two have the same name."""
    here, there = machines
    clock = Clock()
    with closing(Ledger.of_node(here)) as ledger, closing(Ledger.of_node(there)) as other:
        for number in (1, 2):
            ledger.add(reference(number), origin(clock), digest(number), 1)
        with worker_name(ledger, here.spool.path, Role.WORK) as mine:
            assert mine.startswith(machine.host())
            with worker_name(other, there.spool.path, Role.WORK) as theirs:
                assert theirs != mine
                held, foreign = ledger.claim_instance(mine, 600.0), other.claim_instance(theirs, 600.0)
                assert held is not None
                assert foreign is not None
        with worker_name(ledger, here.spool.path, Role.WORK) as again:
            assert again == mine
            assert not ledger.extend(held, 600.0), "its dead holder's"
            assert ledger.extend(foreign, 600.0), "it lives, as far as anybody can tell"


def test_a_machine_keeps_its_name(tmp_path: Path) -> None:
    first = machine.name(tmp_path / "one")
    assert machine.name(tmp_path / "one") == first
    assert machine.name(tmp_path / "other") != first
    (tmp_path / "one" / "run" / "machine").write_text("")  # cut short
    renewed = machine.name(tmp_path / "one")
    assert renewed not in ("", first)
    assert machine.name(tmp_path / "one") == renewed
