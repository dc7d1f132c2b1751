"""A candidate beside the live profile: films that it is to answer, what it said, and both answers counted.

A film is due for it in the transaction that settles the live answer, and is leased as an image is. It is tried once: a
film whose worker died is not tried again. Whatever becomes of it changes nothing of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cxr_node.node.ledger import states
from cxr_node.node.ledger.candidate_tables import candidate_answers
from cxr_node.node.ledger.prepared import value
from cxr_node.node.ledger.states import FREE, Claim, held, insert_once
from cxr_node.node.ledger.tables import instances
from cxr_node.outcome import Answer

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger

MOST = 100_000
"""So many films, the newest, are compared."""
_DEATHS = 3


class AnswerState(StrEnum):
    """Where a film is on its way past the candidate."""

    DUE = "DUE"
    ANSWERED = "ANSWERED"
    FAILED = "FAILED"


class NoAnswer(StrEnum):
    """Why a candidate has none, by its own fault or the node's."""

    FAULT = "fault"
    WORKER_DIED = "worker-died"
    NO_BYTES = "no-bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A film that a candidate is to answer, too."""

    candidate_sha256: str
    live: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateJob:
    """One film to be answered by the candidate."""

    claim: Claim
    instance_id: int
    content_sha256: str
    is_purged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers about one film."""

    instance_id: int
    study_instance_uid: str
    sender: str
    live: str
    """Verdict, in the word for programs."""
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All pairs of one candidate in some time, and what is missing."""

    candidate_sha256: str
    profile: str
    """Name and version of the candidate."""
    live_profiles: tuple[str, ...]
    pairs: tuple[Pair, ...]
    due: int
    failed: int
    is_cut: bool
    """There are more films than are compared here."""


def want(connection: sa.Connection, instance_id: int, comparison: Comparison, now: datetime) -> None:
    """-> DUE, once for each candidate: judged again, a film keeps the pair that it has."""
    row: dict[str, Any] = {"instance_id": instance_id, "candidate_sha256": comparison.candidate_sha256}
    row |= {"state": AnswerState.DUE, "attempts": 0, "fence": 0, "not_before": now}
    insert_once(connection, candidate_answers, row | _columns(comparison.live, "live_"))


_WAITING = sa.and_(
    candidate_answers.c.candidate_sha256 == value("candidate"), candidate_answers.c.state == AnswerState.DUE
)


def claim(ledger: Ledger, candidate_sha256: str, owner: str, lease_s: float) -> CandidateJob | None:
    """Lease the film that has been due for longest; None where none is."""
    whose = {"candidate": candidate_sha256}
    with ledger.database.leasing() as connection:
        claimed = states.claim(connection, candidate_answers, _WAITING, owner, lease_s, ledger.now(), **whose)
        if claimed is None:
            return None
        row, lease = claimed
        of_image = sa.select(instances.c.content_sha256, instances.c.purged_at)
        image = connection.execute(of_image.where(instances.c.id == row["instance_id"])).one()
    return CandidateJob(
        claim=lease,
        instance_id=row["instance_id"],
        content_sha256=image.content_sha256,
        is_purged=image.purged_at is not None,
    )


def settle(ledger: Ledger, job: CandidateJob, answer: Answer) -> bool:
    """-> ANSWERED."""
    return _settle(ledger, job, AnswerState.ANSWERED, _columns(answer) | {"reason": answer.reason})


def fail(ledger: Ledger, job: CandidateJob, why: NoAnswer) -> bool:
    """-> FAILED."""
    return _settle(ledger, job, AnswerState.FAILED, {"reason": why})


def _settle(ledger: Ledger, job: CandidateJob, to: AnswerState, values: dict[str, Any]) -> bool:
    due = sa.and_(held(candidate_answers, job.claim), candidate_answers.c.state == AnswerState.DUE)
    values = FREE | values | {"state": to, "settled_at": ledger.now()}
    with ledger.database.writing() as connection:
        return connection.execute(sa.update(candidate_answers).where(due).values(values)).rowcount == 1


def kills_workers(ledger: Ledger, candidate_sha256: str) -> bool:
    """Whether the last films that a candidate was given each ended its worker."""
    mine = sa.and_(
        candidate_answers.c.candidate_sha256 == candidate_sha256, candidate_answers.c.settled_at.is_not(None)
    )
    last = sa.select(candidate_answers.c.reason).where(mine).order_by(candidate_answers.c.settled_at.desc())
    with ledger.database.reading() as connection:
        reasons = list(connection.scalars(last.limit(_DEATHS)))
    return len(reasons) == _DEATHS and set(reasons) == {NoAnswer.WORKER_DIED}


def newest(ledger: Ledger) -> str | None:
    """The candidate that was given a film last; None: there never was one."""
    last = sa.select(candidate_answers.c.candidate_sha256).order_by(candidate_answers.c.id.desc()).limit(1)
    with ledger.database.reading() as connection:
        return connection.scalar(last)


def compared(
    ledger: Ledger,
    candidate_sha256: str,
    since: datetime,
    until: datetime | None = None,
    sender: str | None = None,
) -> Compared:
    """Films received in some time that both have answered, the newest first."""
    window = [candidate_answers.c.candidate_sha256 == candidate_sha256, instances.c.received_at >= since]
    window += [] if until is None else [instances.c.received_at < until]
    window += [] if sender is None else [instances.c.calling_ae_title == sender]
    columns = (instances.c.study_instance_uid, instances.c.calling_ae_title, candidate_answers)
    joined = sa.select(*columns).join(instances, instances.c.id == candidate_answers.c.instance_id)
    answered = joined.where(*window, candidate_answers.c.state == AnswerState.ANSWERED)
    newest_first = answered.order_by(candidate_answers.c.instance_id.desc()).limit(MOST + 1)
    state = candidate_answers.c.state
    counted = sa.select(state, sa.func.count()).join(instances, instances.c.id == candidate_answers.c.instance_id)
    with ledger.database.reading() as connection:
        rows: Sequence[Any] = connection.execute(newest_first).mappings().all()
        numbers = {word: int(number) for word, number in connection.execute(counted.where(*window).group_by(state))}
    return Compared(
        candidate_sha256=candidate_sha256,
        profile=next((row["profile"] for row in rows if row["profile"]), ""),
        live_profiles=tuple(sorted({row["live_profile"] for row in rows[:MOST]})),
        pairs=tuple(_pair(row) for row in rows[:MOST]),
        due=numbers.get(AnswerState.DUE, 0),
        failed=numbers.get(AnswerState.FAILED, 0),
        is_cut=len(rows) > MOST,
    )


def _pair(row: Any) -> Pair:
    return Pair(
        instance_id=row["instance_id"],
        study_instance_uid=row["study_instance_uid"],
        sender=row["calling_ae_title"],
        live=row["live_verdict"],
        candidate=row["verdict"],
    )


def _columns(answer: Answer, prefix: str = "") -> dict[str, Any]:
    row, column = answer.peak if answer.peak is not None else (None, None)
    told: dict[str, Any] = {
        "profile": answer.profile,
        "verdict": answer.verdict,
        "abstain_reason": answer.abstain_reason,
    }
    told |= {"score": answer.score, "distance": answer.distance, "peak_row": row, "peak_column": column}
    return {f"{prefix}{name}": value for name, value in told.items()}
