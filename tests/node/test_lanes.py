"""Several images in hand: each ends on its own, and what a worker died of is found without blaming its neighbours."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config.schema import Config
from cxr_node.errors import InstanceError, ModelError
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.lease_keeper import worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.notify import Role
from cxr_node.node.work import worker
from cxr_node.node.work.worker import Analyser
from cxr_node.outcome import Outcome, Reported
from tests.node import workplace

FORKS = multiprocessing.get_context("forkserver")
LANES = 3


def config(folder: Path, **sections: Any) -> Config:
    return workplace.config(folder / "spool", work={"lanes": LANES} | sections)


@contextmanager
def working(settings: Config, judge: Callable[..., Outcome] | Analyser) -> Iterator[list[BaseException]]:
    """A worker in a thread; what it raised at its end."""
    analyser = judge if isinstance(judge, Analyser) else workplace.analyser(judge)
    raised: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            worker.run(settings, lambda: analyser, stop)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def rows(settings: Config) -> list[queries.InstanceRow]:
    ledger = Ledger.open(settings.spool.path)
    try:
        return list(reversed(queries.recent(ledger, 100)))
    finally:
        ledger.close()


def settled(settings: Config) -> bool:
    return workplace.eventually(lambda: "RECEIVED" not in {row.state for row in rows(settings)}, 30)


def test_as_many_are_in_hand_as_there_are_lanes(tmp_path: Path) -> None:
    settings = config(tmp_path)
    workplace.receive(settings, *range(1, 7))
    together = threading.Barrier(LANES)

    def judge(*arguments: Any) -> Outcome:
        together.wait(10)  # breaks where fewer come
        return workplace.judge(*arguments)

    with working(settings, judge) as raised:
        assert settled(settings)
    assert not raised
    assert [(row.state, row.attempts) for row in rows(settings)] == [("DELIVERED", 1)] * 6


def test_one_that_fails_fails_alone(tmp_path: Path) -> None:
    settings = config(tmp_path)
    workplace.receive(settings, *range(1, 7))

    def judge(content: bytes, *arguments: Any) -> Outcome:
        if content == b"radiograph 2":
            raise InstanceError("no header")
        return workplace.judge(content, *arguments)

    with working(settings, judge):
        assert settled(settings)
    assert [row.state for row in rows(settings)] == ["DELIVERED", "DEAD"] + ["DELIVERED"] * 4


def test_a_classifier_at_fault_ends_the_worker_and_blames_no_image(tmp_path: Path) -> None:
    settings = config(tmp_path)
    workplace.receive(settings, *range(1, 4))
    together = threading.Barrier(LANES)

    def judge(*_: Any) -> Outcome:
        together.wait(10)
        raise ModelError("weights broke")

    with working(settings, judge) as raised:
        assert workplace.eventually(lambda: bool(raised), 20)
    assert isinstance(raised[0], ModelError)
    assert [(row.state, row.attempts, row.lease_owner) for row in rows(settings)] == [("RECEIVED", 0, None)] * 3


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_poisoned_image_among_others_is_the_only_one_that_is_dead(tmp_path: Path, max_attempts: int) -> None:
    """The first death ends all that are in hand, and none is blamed; from then on each is worked on alone."""
    settings = config(tmp_path, max_attempts=max_attempts)
    workplace.receive(settings, 1)
    workplace.receive(settings, 2, content=b"poison")
    workplace.receive(settings, 3, 4, 5)
    deaths = 0
    while "RECEIVED" in {row.state for row in rows(settings)} and deaths < 9:
        process = FORKS.Process(target=_until_poisoned, args=(settings,))
        process.start()
        process.join(60)
        deaths += process.exitcode == -signal.SIGKILL
    assert deaths == 1 + max_attempts
    first, poison, *others = rows(settings)
    assert (poison.state, poison.sentence) == ("DEAD", f"{max_attempts} workers died of it")
    assert [(row.state, row.attempts) for row in (first, *others)] == [("DELIVERED", 1)] * 4


def _until_poisoned(settings: Config) -> None:
    """The poison waits until it has company, where it may have any."""
    beside = threading.Semaphore(0)

    def judge(content: bytes, *arguments: Any) -> Outcome:
        if content == b"poison":
            beside.acquire(timeout=1.0)
            os.kill(os.getpid(), signal.SIGKILL)
        if "poison" in held():
            beside.release()
            threading.Event().wait(20)  # in hand when the worker dies
        return workplace.judge(content, *arguments)

    def held() -> list[str]:
        poison = workplace.digest(b"poison")
        return ["poison" for row in rows(settings) if row.content_sha256 == poison and row.lease_owner]

    stop = threading.Event()
    threading.Thread(target=lambda: (settled(settings), stop.set()), daemon=True).start()
    worker.run(settings, lambda: workplace.analyser(judge), stop)


def test_what_a_dead_worker_held_alone_stays_counted_and_of_several_none(tmp_path: Path) -> None:
    settings = config(tmp_path)
    ledger = Ledger.open(settings.spool.path)
    try:
        workplace.receive(settings, 1)
        for attempts in ([1], [1, 0, 0]):
            with worker_name(ledger, settings.spool.path, Role.WORK) as owner:
                while ledger.claim_instance(owner, 3600) is not None:
                    pass
            with worker_name(ledger, settings.spool.path, Role.WORK):
                assert [row.attempts for row in rows(settings)] == attempts
            workplace.receive(settings, 2, 3)
            _past(ledger)
    finally:
        ledger.close()


def _past(ledger: Ledger) -> None:
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("UPDATE instances SET not_before = 0")


def test_a_study_is_ripe_when_it_is_although_its_last_image_took_longest(tmp_path: Path) -> None:
    """Who fills the lanes has then looked what is next, and would look again after half a minute only."""
    pacs = {"name": "pacs", "address": "PACS@127.0.0.1:104"}
    settings = workplace.config(tmp_path / "spool", study={"quiet_s": 0.0}, destinations=[pacs])
    reported = threading.Event()
    kept = workplace.judgement(1)

    def judge(*_: Any) -> Outcome:
        time.sleep(0.3)  # as long as the other thread needs to find nothing more to do
        return Reported(finding=kept.finding, artifacts=(), judgement=kept)

    def report(*_: Any) -> None:
        reported.set()

    workplace.receive(settings, 1)
    with working(settings, Analyser(process=judge, report=report)):
        assert reported.wait(10)
