"""A candidate beside the live profile: it answers afterwards, and nothing that it does reaches an image."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Precedent
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import candidates, operator_moves, promotions
from cxr_node.node.ledger.candidate_tables import candidate_answers
from cxr_node.node.ledger.candidates import Comparison, NoAnswer
from cxr_node.node.ledger.counted import Counted
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.promotions import Rivals
from cxr_node.node.work import beside, worker
from cxr_node.node.work.beside import Candidate, ProfileChangedError
from cxr_node.outcome import Answer, Outcome, Reported
from tests.node import ledgers, peers, workplace
from tests.node.ledgers import Clock
from tests.node.test_ledger import PACS, add, claimed, clock, ledger
from tests.patience import PATIENCE_S, eventually

__all__ = ["clock", "ledger"]  # fixtures

FORKS = multiprocessing.get_context("forkserver")
WHO = "c" * 64
LIVE = Answer(profile="live 1", verdict="PNEUMONIA", score=0.875, distance=0.5, peak=(0.25, 0.75))
OTHER = Answer(
    profile="new 2", verdict="UNCERTAIN", abstain_reason="views-disagree", score=0.5, distance=0.75, peak=(0.5, 0.5)
)
PAIR = Comparison(candidate_sha256=WHO, live=LIVE)
RIVALS = Rivals(profile="live", candidate="new", candidate_sha256=WHO)


def answered(ledger: Ledger, clock: Clock, number: int = 1) -> int:
    assert add(ledger, clock, number)
    job = claimed(ledger)
    assert ledger.settle_reported(
        job, ledgers.finding(), ledgers.results(number), PACS, counted=Counted(comparison=PAIR)
    )
    return job.instance_id


def rows(ledger: Ledger) -> list[tuple[str, str | None, str | None]]:
    columns = (candidate_answers.c.state, candidate_answers.c.verdict, candidate_answers.c.reason)
    with ledger.database.reading() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(candidate_answers.c.id))]


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_both_answers_are_kept_once(ledger: Ledger, clock: Clock) -> None:
    number = answered(ledger, clock)
    job = candidates.claim(ledger, WHO, "me", 60.0)
    assert job is not None and (job.instance_id, job.claim.attempts, job.is_purged) == (number, 1, False)
    assert candidates.claim(ledger, WHO, "bert", 60.0) is None
    assert candidates.claim(ledger, "d" * 64, "me", 60.0) is None, "another candidate has films of its own"
    assert candidates.settle(ledger, job, OTHER)
    assert not candidates.settle(ledger, job, OTHER)
    operator_moves.rejudge(ledger, [number], by="anna")
    assert ledger.settle_reported(
        claimed(ledger), ledgers.finding(), ledgers.results(), PACS, counted=Counted(comparison=PAIR)
    )
    assert candidates.claim(ledger, WHO, "me", 60.0) is None
    with ledger.database.reading() as connection:
        row = connection.execute(sa.select(candidate_answers)).mappings().one()
    assert (row["live_verdict"], row["live_score"], row["live_peak_row"], row["live_peak_column"]) == (
        "PNEUMONIA",
        0.875,
        0.25,
        0.75,
    )
    assert (row["verdict"], row["score"], row["distance"], row["peak_row"]) == ("UNCERTAIN", 0.5, 0.75, 0.5)
    found = candidates.compared(ledger, WHO, clock() - timedelta(days=1))
    assert [(pair.live, pair.candidate, pair.sender) for pair in found.pairs] == [
        ("PNEUMONIA", "UNCERTAIN", "MODALITY")
    ]
    assert (found.profile, found.live_profiles, found.due, found.failed) == ("new 2", ("live 1",), 0, 0)
    assert candidates.compared(ledger, WHO, clock(), sender="NOBODY").pairs == ()


def test_a_film_whose_worker_died_is_given_up_and_three_say_that_it_kills(ledger: Ledger, clock: Clock) -> None:
    for number in (1, 2, 3):
        answered(ledger, clock, number)
        assert candidates.claim(ledger, WHO, "me", 60.0) is not None
        assert not candidates.kills_workers(ledger, WHO)
        clock.forward(61.0)
        again = candidates.claim(ledger, WHO, "me", 60.0)
        assert again is not None and again.claim.attempts == 2
        assert candidates.fail(ledger, again, NoAnswer.WORKER_DIED)
    assert candidates.kills_workers(ledger, WHO)
    assert candidates.compared(ledger, WHO, clock() - timedelta(days=1)).failed == 3


def test_it_goes_with_its_image(ledger: Ledger, clock: Clock) -> None:
    answered(ledger, clock)
    with ledger.database.writing() as connection:
        retention.delete_rows(connection, [1])
    assert rows(ledger) == []
    assert candidates.newest(ledger) is None


def test_a_promotion_holds_for_the_two_that_it_names_until_it_is_taken_back(ledger: Ledger, clock: Clock) -> None:
    assert promotions.current(ledger, RIVALS) is None
    assert promotions.last_id(ledger) == 0
    promotions.promote(ledger, RIVALS, by="anna")
    now = promotions.current(ledger, RIVALS)
    assert now is not None and (now.by, now.at) == ("anna", clock())
    for name in ("profile", "candidate", "candidate_sha256"):
        other = Rivals(**({"profile": "live", "candidate": "new", "candidate_sha256": WHO} | {name: "x"}))
        assert promotions.current(ledger, other) is None, "the configuration is the truth"
    promotions.promote(ledger, RIVALS, by="bert", back=True)
    assert promotions.current(ledger, RIVALS) is None
    assert promotions.last_id(ledger) == 2


# --- the worker ------------------------------------------------------------------------------------------------------


def judge(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
    outcome = workplace.judge(content, origin, config, precedent)
    assert isinstance(outcome, Reported)
    return Reported(finding=outcome.finding, artifacts=outcome.artifacts, answer=LIVE)


def analyser(said: Callable[[bytes], Answer], promotion: int = 0) -> worker.Analyser:
    named = Candidate(sha256=WHO, judge=said, promotion=promotion)
    return worker.Analyser(process=judge, report=lambda case, config: None, candidate=named)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has nothing to do looks again after half a minute; no test here is about that."""
    monkeypatch.setattr(worker, "LOOK_AFTER_S", 0.5)


@contextmanager
def working(config: Config, said: Callable[[bytes], Answer]) -> Iterator[list[Exception]]:
    stop, raised = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            worker.run(config, lambda: analyser(said), stop)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def settled(config: Config) -> list[tuple[str, str | None, str | None]]:
    ledger = Ledger.of_node(config)
    try:
        return rows(ledger)
    finally:
        ledger.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_live_answer_does_not_wait_for_the_candidate(tmp_path: Path, lanes: int) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slow(content: bytes) -> Answer:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return OTHER

    config = workplace.config(tmp_path, peers.nobody(), work={"lanes": lanes})
    with working(config, slow) as raised:
        workplace.receive(config, 1)
        assert begun.wait(PATIENCE_S)
        workplace.receive(config, 2, 3)
        assert eventually(lambda: [state for state, _ in workplace.states(config)] == ["REPORTED"] * 3)
        assert not go_on.is_set(), "the candidate has not answered the first film yet"
        go_on.set()
        assert eventually(lambda: settled(config) == [("ANSWERED", "UNCERTAIN", None)] * 3)
    assert raised == []


def test_a_candidate_that_fails_costs_no_image_and_rests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given: list[bytes] = []

    def broken(content: bytes) -> Answer:
        given.append(content)
        raise RuntimeError("a bug of the candidate")

    config = workplace.config(tmp_path, peers.nobody())
    workplace.receive(config, *range(12))
    with working(config, broken) as raised:
        assert eventually(lambda: len([row for row in settled(config) if row[0] == "FAILED"]) == 10)
        workplace.receive(config, 50)
        assert eventually(lambda: [state for state, _ in workplace.states(config)] == ["REPORTED"] * 13)
    assert raised == []
    assert len(given) == 10
    assert "candidate rests after 10 faults in a row" in caplog.text


def _work_and_die(config: Config) -> None:
    def deadly(content: bytes) -> Answer:
        os.kill(os.getpid(), signal.SIGKILL)
        return OTHER

    beside._LEASE_S = worker.LOOK_AFTER_S = 0.5
    worker.run(config, lambda: analyser(deadly), threading.Event())


def test_a_candidate_that_ends_its_worker_is_given_no_film_twice(
    tmp_path: Path, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = workplace.config(tmp_path, peers.nobody(), **engine)
    workplace.receive(config, 1)
    process = FORKS.Process(target=_work_and_die, args=(config,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert workplace.states(config) == [("REPORTED", None)], "the answer stood before"
    with working(config, lambda content: OTHER) as raised:
        assert eventually(lambda: settled(config) == [("FAILED", None, "worker-died")])
        workplace.receive(config, 2)
        assert eventually(lambda: settled(config)[1:] == [("ANSWERED", "UNCERTAIN", None)])
    assert raised == []


def test_a_worker_ends_when_another_profile_is_made_live_and_finishes_what_it_has(tmp_path: Path) -> None:
    config = workplace.config(tmp_path, peers.nobody())
    with working(config, lambda content: OTHER) as raised:
        workplace.receive(config, 1)
        assert eventually(lambda: settled(config) == [("ANSWERED", "UNCERTAIN", None)])
        ledger = Ledger.of_node(config)
        promotions.promote(ledger, RIVALS, by="anna")
        ledger.close()
        assert eventually(lambda: bool(raised))
    assert isinstance(raised[0], ProfileChangedError)
