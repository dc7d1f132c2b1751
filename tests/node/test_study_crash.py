"""kill -9 at every line of judging and of reporting: the next worker makes exactly one report, due once everywhere."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.domain import Origin
from cxr_node.node.ledger.lease_keeper import worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.studies import claim_study
from cxr_node.node.ledger.tables import artifacts, deliveries, instances, report_artifacts, studies, study_reports
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.spool import Spool
from tests import postgres
from tests.forks import FORKS
from tests.node import ledgers, line_deaths, workplace
from tests.node.ledgers import Clock

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DESTINATIONS = [
    {"name": "pacs", "address": "PACS@127.0.0.1:104"},
    {"name": "ward", "address": "WARD@127.0.0.1:104", "send": ["report"]},
]
QUIET_S = 10.0
AT_ONCE = 4
"""Processes that are killed at a time."""
EVERY = {"sqlite": 1, "postgresql": 8}
"""Of the lines that a worker comes to, each such one: a copy of a database takes a server as long as all the rest."""
_LINKED = study_reports.join(report_artifacts).join(artifacts)
TOLD = {
    "reports": sa.select(study_reports.c.made_of_sha256, study_reports.c.verdict).order_by(study_reports.c.id),
    "documents": sa.select(study_reports.c.made_of_sha256, artifacts.c.sop_instance_uid)
    .select_from(_LINKED)
    .order_by(study_reports.c.id, artifacts.c.sop_instance_uid),
    "due": sa.select(deliveries.c.destination, artifacts.c.sop_instance_uid, deliveries.c.state)
    .join(artifacts)
    .order_by(deliveries.c.destination, artifacts.c.sop_instance_uid),
    "studies": sa.select(studies.c.state, studies.c.lease_owner, studies.c.attempts),
    "images": sa.select(instances.c.state, instances.c.lease_owner).order_by(instances.c.id),
}


def comes(node: Node, number: int, word: str = "radiograph") -> None:
    """Image `number` of the one study is received."""
    part = (spool := Spool(node.config.spool.path)).begin()
    part.write(f"{word} {number}".encode())
    stored = spool.store_object(part, node.clock())
    ref = replace(ledgers.reference(1), sop_instance_uid=f"1.2.1.1.{number}")
    origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=node.clock())
    assert node.ledger.add(ref, origin, stored.sha256, stored.size_bytes)


@dataclass(frozen=True)
class Node:
    """A spool, its ledger, and a clock that stands still."""

    config: Config
    ledger: Ledger
    clock: Clock

    def works(self, after_s: float = 0.0) -> None:
        """Let a worker do all that is due then."""
        self.clock.forward(after_s)
        line_deaths.work(self.config, self.ledger)

    def delivers(self) -> list[tuple[str, str]]:
        """Name what each destination is given, in order."""
        sent = []
        for name in ("pacs", "ward"):
            while (job := self.ledger.claim_delivery(name, "sender", 60.0)) is not None:
                sent.append((name, job.artifact.sop_instance_uid))
                assert self.ledger.settle_delivered(job, 0x0000)
        return sent

    def told(self) -> dict[str, list[Any]]:
        """Everything in the ledger that a report consists of, but times and numbers, of which a server skips some."""
        with self.ledger.database.reading() as connection:
            return {name: list(map(tuple, connection.execute(query))) for name, query in TOLD.items()}

    @contextmanager
    def copied(self, name: str) -> Iterator[Node]:
        """Another one that has the same spool, and the same rows."""
        folder, url = self.config.spool.path.with_name(name), self.config.ledger.url
        shutil.copytree(self.config.spool.path, folder, ignore=shutil.ignore_patterns("*.lock", "*.sock"))
        section: dict[str, Any] = {}
        if url is not None:
            section = {"ledger": postgres.section(folder.parent, postgres.copied(url))}
        with opened(folder, self.clock.time, section) as copy:
            yield copy
        if section:
            postgres.drop(section["ledger"]["url"])
        shutil.rmtree(folder)


@contextmanager
def opened(folder: Path, now: datetime, engine: dict[str, Any]) -> Iterator[Node]:
    config = workplace.config(folder, destinations=DESTINATIONS, study={"quiet_s": QUIET_S}, **engine)
    clock = Clock(now)
    with closing(line_deaths.opened(config, clock)) as ledger:
        yield Node(config, ledger, clock)


def finish(node: Node) -> dict[str, list[Any]]:
    """Let another worker do the rest; what the ledger tells then."""
    node.works()
    node.works(30)  # what was freed steps back for a moment, and the study becomes ripe
    assert not list((node.config.spool.path / "incoming").iterdir())
    return node.told()


def check(node: Node, functions: tuple[Any, ...]) -> int:
    """Kill a worker at each line of the functions that it comes to, each time on the same spool; how many there are."""
    with node.copied("undisturbed") as undisturbed:
        lines = line_deaths.lines(functions, undisturbed.works)
        expected = finish(undisturbed)
    names = tuple(each.__qualname__ for each in functions)
    deadly = lines[:: EVERY[node.ledger.database.engine.name]]
    for start in range(0, len(deadly), AT_ONCE):
        with ExitStack() as stack:
            nodes = {
                line: stack.enter_context(node.copied("-".join(map(str, line)))) for line in deadly[start:][:AT_ONCE]
            }
            victims = {
                line: FORKS.Process(target=line_deaths.main, args=(each.config, each.clock(), names, line))
                for line, each in nodes.items()
            }
            for victim in victims.values():
                victim.start()
            for line, victim in victims.items():
                victim.join(30)
                assert victim.exitcode == -signal.SIGKILL, f"never came to {line}"
                assert finish(nodes[line]) == expected, line
    return len(lines)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]) -> Iterator[Node]:
    """Two radiographs and a lateral image have come; the last of them waits to be judged."""
    monkeypatch.setattr(os, "fsync", line_deaths.need_not_last)
    with opened(tmp_path / "spool", BEGIN, engine) as made:
        comes(made, 1)
        comes(made, 2, "lateral")
        made.works()
        comes(made, 3)
        yield made


def test_a_worker_killed_at_every_line_of_ripening_lets_its_study_wait_once(node: Node) -> None:
    assert check(node, line_deaths.JUDGING) >= 25


def test_a_worker_killed_at_every_line_of_reporting_makes_one_report(node: Node) -> None:
    node.works()
    node.clock.forward(QUIET_S)
    assert check(node, line_deaths.REPORTING) >= 70


def test_a_worker_killed_at_every_line_of_settling_makes_a_second_report_once(node: Node) -> None:
    """The first report was delivered, and another image came."""
    node.works()
    node.works(QUIET_S)
    assert len(node.delivers()) == 5
    comes(node, 4)
    node.works()
    node.clock.forward(QUIET_S)
    assert check(node, line_deaths.SETTLING) >= 60


def test_what_a_dead_worker_reported_is_free_after_a_moment_and_reported_alone(node: Node) -> None:
    node.works()
    node.clock.forward(QUIET_S)
    spool = node.config.spool.path
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        first = claim_study(node.ledger, owner, 3600)
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        assert claim_study(node.ledger, owner, 3600) is None
        node.clock.forward(1)
        second = claim_study(node.ledger, owner, 3600)
    assert first is not None and second is not None
    assert (first.attempts, first.alone, second.attempts, second.alone) == (1, False, 2, True)


def test_an_image_is_not_blamed_for_a_report_that_killed_its_worker(node: Node) -> None:
    node.works()
    node.clock.forward(QUIET_S)
    spool = node.config.spool.path
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        assert claim_study(node.ledger, owner, 3600) is not None
        comes(node, 4)
        assert node.ledger.claim_instance(owner, 3600) is not None
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        node.clock.forward(1)
        image = node.ledger.claim_instance(owner, 3600)
        assert image is not None and image.attempts == 1


def test_an_image_whose_worker_died_is_waited_for(node: Node) -> None:
    spool = node.config.spool.path
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        assert node.ledger.claim_instance(owner, 3600) is not None
    with worker_name(node.ledger, spool, Role.WORK) as owner:
        node.clock.forward(QUIET_S)
        assert claim_study(node.ledger, owner, 3600) is None
    node.works()
    assert len(node.told()["reports"]) == 1, "with all three images"


def test_two_workers_make_one_report_of_a_ripe_study(node: Node) -> None:
    node.works()
    node.clock.forward(QUIET_S)
    with node.copied("undisturbed") as undisturbed:
        undisturbed.works()
        expected = undisturbed.told()
    for round_ in range(3):
        with node.copied(f"round{round_}") as ripe:
            both = [FORKS.Process(target=line_deaths.main, args=(ripe.config, ripe.clock())) for _ in range(2)]
            for each in both:
                each.start()
            for each in both:
                each.join(30)
            assert [each.exitcode for each in both] == [0, 0]
            assert ripe.told() == expected
            assert len(ripe.delivers()) == 5
