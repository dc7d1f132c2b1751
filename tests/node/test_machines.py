"""Several machines with one ledger: what is shown of each, and that all of them answer alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import machines, queries, status
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process import machine
from cxr_node.node.process.supervisor import ROLES, Presence
from cxr_node.node.work import worker
from cxr_node.node.work.worker import Analyser
from tests import postgres
from tests.node import workplace
from tests.node.ledgers import Clock, digest, origin, reference
from tests.patience import PATIENCE_S, eventually

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)


class Two:
    """Two machines, each with a spool of its own, and one ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.section = folder, postgres.section(folder)
        self.here, self.there = (workplace.config(folder / name, ledger=self.section) for name in ("here", "there"))

    def ledger(self, config: Config, clock: Clock | None = None) -> Ledger:
        opened = Ledger.of_node(config)
        return opened if clock is None else Ledger(opened.database, clock)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


@contextmanager
def runs(ledger: Ledger, config: Config, *roles: str) -> Iterator[None]:
    """Processes of a machine that are ready, and have told so."""
    present = [Presence(config.spool.path, role) for role in roles]
    for each in present:
        each.ready()
    machines.tell(ledger, config.spool.path)
    yield
    for each in present:
        each.close()


def test_status_is_of_the_whole_node(two: Two) -> None:
    with (
        closing(two.ledger(two.here)) as ledger,
        closing(two.ledger(two.there)) as other,
        runs(ledger, two.here, "receive", "work"),
        runs(other, two.there, "work", "deliver"),
    ):
        seen = status.look(ledger, two.here)
        numbers = {role: state.processes for role, state in seen.roles.items()}
        assert numbers == {"receive": 1, "work": 2, "deliver": 1}
        assert {each.name: each.roles["deliver"].running for each in seen.machines} == {
            machine.name(two.here.spool.path): False,
            machine.name(two.there.spool.path): True,
        }
        assert status.raised(status.parse("stopped"), seen) == []
        assert status.look(other, two.there).roles["receive"].running


def test_a_machine_that_is_not_heard_of_runs_nothing_any_more(two: Two) -> None:
    clock = Clock()
    with closing(two.ledger(two.here, clock)) as ledger, closing(two.ledger(two.there, clock)) as other:
        with runs(other, two.there, *ROLES), runs(ledger, two.here, "receive"):
            clock.forward(machines.SILENT_AFTER_S + 1)
            seen = status.look(ledger, two.here)
            assert [role for role, state in seen.roles.items() if state.running] == ["receive"]
            assert status.raised(status.parse("stopped"), seen) == [
                "stopped: work, deliver do not run",
                f"stopped: {machine.name(two.there.spool.path)} has not been heard of for 1 min 1 s",
            ]
        clock.forward(timedelta(days=8).total_seconds())
        machines.tell(ledger, two.here.spool.path)
        assert [each.name for each in status.look(ledger, two.here).machines] == [machine.name(two.here.spool.path)]


def test_status_and_trace_show_where(two: Two) -> None:
    file, clock = two.folder / "node.yaml", Clock()
    file.write_text(
        f"spool: {{path: {two.here.spool.path}}}\n"
        f"ledger: {{url: '{two.section['url']}', password: {two.section['password']}}}\n"
    )
    with closing(two.ledger(two.here)) as ledger, closing(two.ledger(two.there)) as other:
        ledger.add(reference(1), origin(clock), digest(1), 1)
        claimed = other.claim_instance(f"{other.database.machine}/work-0", 60.0)
        assert claimed is not None
        with runs(ledger, two.here, "receive"), runs(other, two.there, "work", "deliver"):
            shown = CliRunner().invoke(app, ["status", "--config", str(file)])
            assert machine.name(two.there.spool.path) in shown.output, shown.output
            traced = CliRunner().invoke(app, ["trace", "1.2.1.1.1", "--config", str(file)])
    assert f"it is being judged now by {machine.name(two.there.spool.path)}/work-0" in traced.output
    assert machine.host() in traced.output.splitlines()[-1], "where it was received"


def test_a_ledger_in_a_file_names_no_machine(tmp_path: Path) -> None:
    config, clock = workplace.config(tmp_path), Clock()
    with closing(Ledger.of_node(config)) as ledger:
        ledger.add(reference(1), origin(clock), digest(1), 1)
        (story,) = queries.trace(ledger, "1.2.1.1.1")
        assert [event.machine for event in story.events] == [None]
        assert len(status.look(ledger, config).machines) == 1


def working(config: Config, rules_sha256: str) -> Analyser:
    plain = workplace.analyser()
    return Analyser(process=plain.process, report=plain.report, rules_sha256=rules_sha256)


def begins(config: Config, rules_sha256: str, ledger: Ledger) -> AbstractContextManager[None]:
    return machines.alike(ledger, config, rules_sha256)


def test_a_worker_that_would_answer_otherwise_is_refused_while_the_other_works(two: Two) -> None:
    sentence = f"cxr-node is also {machine.name(two.here.spool.path)}, which answers"
    with closing(two.ledger(two.here)) as ledger, closing(two.ledger(two.there)) as other:
        with begins(two.here, digest(1), ledger), runs(ledger, two.here, "work"):
            with pytest.raises(ConfigError, match=sentence):
                worker.run(two.there, lambda: working(two.there, digest(2)), threading.Event())
            with begins(two.there, digest(1), other):
                pass
        machines.tell(ledger, two.here.spool.path)
        with begins(two.there, digest(2), other):  # the old one has stopped
            pass


def test_of_two_workers_that_begin_at_once_and_would_answer_otherwise_one_is_refused(two: Two) -> None:
    """Neither is ready yet, so no sign of life tells of it."""
    met, begun, over = threading.Barrier(2), list[str](), threading.Barrier(2)
    refused: list[str] = []

    def begin(config: Config, rules_sha256: str) -> None:
        with closing(two.ledger(config)) as ledger:
            met.wait(PATIENCE_S)
            try:
                with begins(config, rules_sha256, ledger):
                    begun.append(rules_sha256)
                    over.wait(PATIENCE_S)
            except ConfigError as error:
                refused.append(str(error))
                over.wait(PATIENCE_S)

    each = [(two.here, digest(1)), (two.there, digest(2))]
    threads = [threading.Thread(target=begin, args=one) for one in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (len(begun), len(refused)) == (1, 1)


def test_a_worker_that_was_killed_while_it_began_is_believed_for_a_minute(two: Two) -> None:
    clock = Clock()
    with closing(two.ledger(two.here, clock)) as ledger, closing(two.ledger(two.there, clock)) as other:
        killed = begins(two.here, digest(1), ledger)
        killed.__enter__()
        with pytest.raises(ConfigError), begins(two.there, digest(2), other):
            pass
        clock.forward(machines.SILENT_AFTER_S + 1)
        with begins(two.there, digest(2), other):
            pass
        killed.__exit__(None, None, None)


def test_a_machine_that_was_stopped_is_not_missed(two: Two) -> None:
    clock = Clock()
    with closing(two.ledger(two.here, clock)) as ledger, closing(two.ledger(two.there, clock)) as other:
        left, killed = Presence(two.there.spool.path, "work"), Presence(two.there.spool.path, "deliver")
        with machines.telling(other, two.there.spool.path):
            left.ready()
            left.stopping()
        clock.forward(machines.SILENT_AFTER_S + 1)
        (there,) = [each for each in status.look(ledger, two.here).machines if each.name == other.database.machine]
        assert (there.is_silent, there.has_left, there.is_missing) == (True, True, False)
        assert machine.host() not in "".join(status.raised(status.parse("stopped"), status.look(ledger, two.here)))
        left.close()
        killed.ready()
        machines.tell(other, two.there.spool.path)
        clock.forward(machines.SILENT_AFTER_S + 1)
        assert "has not been heard of" in "".join(status.raised(status.parse("stopped"), status.look(ledger, two.here)))
        killed.close()


def test_a_worker_tells_that_it_works(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "TOLD_EVERY_S", 0.05)
    stop, present = threading.Event(), Presence(two.there.spool.path, "work")
    thread = threading.Thread(target=worker.run, args=(two.there, workplace.analyser, stop, present))
    thread.start()
    with closing(two.ledger(two.here)) as ledger:
        assert eventually(lambda: status.look(ledger, two.here).roles["work"].running)
        stop.set()
        thread.join(PATIENCE_S)
        present.close()
