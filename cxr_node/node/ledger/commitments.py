"""Promises: what a destination was asked to commit to, and what it answered (PS3.4 Annex J).

All moves between their states live here, as those of instances and deliveries live in `ledger`, which calls
`expect` within its own transaction. Knows no association: `commitment_loop` asks, `reports` hands the answers over.
A promise is about a delivery that the destination accepted: nothing here undoes an acceptance but `_send_again`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cxr_node.node.ledger import results
from cxr_node.node.ledger.states import FREE, DeliveryState, InstanceState, PromiseState, is_on_hold, note
from cxr_node.node.ledger.tables import (
    Instant,
    artifacts,
    commitments,
    deliveries,
    instance_artifacts,
    instances,
    promises,
)

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger

PROMISE_MOVES: Mapping[PromiseState, frozenset[PromiseState]] = {
    PromiseState.DUE: frozenset({PromiseState.ASKED, PromiseState.COMMITTED, PromiseState.UNCOMMITTED}),
    PromiseState.ASKED: frozenset(PromiseState),
    PromiseState.COMMITTED: frozenset({PromiseState.DUE}),  # only by renew() and by a delivery that was sent again
    PromiseState.UNCOMMITTED: frozenset({PromiseState.COMMITTED, PromiseState.DUE}),  # a late answer; renew()
}
OPEN = (PromiseState.DUE, PromiseState.ASKED)
MAX_ASKS = 3
"""Most requests for one object, failure answers included; then it is accepted, not committed."""
BATCH = 100
"""Objects of one N-ACTION."""
GATHER_S = 2.0
"""Deliveries within this time share one N-ACTION."""
UNANSWERED_S = 120.0
"""Delay if a process died between the row and the N-ACTION-RSP."""
HOPELESS = {0x0122: "its SOP Class is not supported", 0x0119: "its SOP Class is another one"}
"""Failure Reasons (PS3.3 C.14.1.1) that the same bytes would get again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One N-ACTION: SOP Class and SOP Instance UID of each object it asks about."""

    id: int
    uid: str
    destination: str
    references: tuple[tuple[str, str], ...] = ()
    due_since: Mapping[str, datetime] = field(default_factory=dict)
    """By SOP Instance UID."""
    by_query: bool = False
    """Who asks sees the answer at once: a question that broke off does not count, only one that found nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an N-EVENT-REPORT says, or what QIDO-RS shows."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int] = field(default_factory=dict)
    """Failure Reason by SOP Instance UID."""


def expect(connection: sa.Connection, delivery_id: int, destination: str, now: datetime) -> None:
    """-> DUE, for a delivery that was accepted just now; how often it was asked about stays counted."""
    values = {"state": PromiseState.DUE, "commitment_id": None, "settled_at": None, "first_due_at": now}
    values["not_before"] = now + timedelta(seconds=GATHER_S)
    known = sa.update(promises).where(promises.c.delivery_id == delivery_id).values(values)
    if connection.execute(known).rowcount == 0:
        row = values | {"delivery_id": delivery_id, "destination": destination}
        connection.execute(sa.insert(promises), row)


def begin(ledger: Ledger, destination: str, by_query: bool = False) -> Transaction | None:
    """DUE, or ASKED in vain -> ASKED: a new transaction about what is due; None where nothing is.

    What was delivered a moment ago goes with it. The row is written before the request leaves: the answer may
    arrive at any moment, in another process.
    """
    now = ledger.now()
    with ledger.database.writing() as connection:
        columns = (artifacts.c.sop_class_uid, artifacts.c.sop_instance_uid, promises)
        due = _accepted(sa.select(*columns), destination).join(artifacts, artifacts.c.id == results.chosen())
        soon, asks = promises.c.not_before <= now + timedelta(seconds=GATHER_S), promises.c.asks < MAX_ASKS
        due = due.where(promises.c.state.in_(OPEN), soon, asks).order_by(promises.c.delivery_id)
        rows = connection.execute(due.limit(BATCH).with_for_update(of=promises, skip_locked=True)).mappings().all()
        if not rows:
            return None
        uid = f"2.25.{uuid.uuid4().int}"
        row = {"transaction_uid": uid, "destination": destination, "asked_at": now}
        row_id = int(connection.execute(sa.insert(commitments).returning(commitments.c.id), row).scalar_one())
        values = {"state": PromiseState.ASKED, "commitment_id": row_id}
        values["not_before"] = now + timedelta(seconds=UNANSWERED_S)
        if not by_query:
            in_vain = promises.c.state == PromiseState.ASKED
            again = sa.case((in_vain, sa.literal(now, Instant)), else_=promises.c.first_due_at)
            values |= {"asks": promises.c.asks + 1, "first_due_at": again}
        _set(connection, [row["delivery_id"] for row in rows], values)
    references = tuple((row["sop_class_uid"], row["sop_instance_uid"]) for row in rows)
    since = {row["sop_instance_uid"]: row["first_due_at"] for row in rows}
    return Transaction(
        id=row_id, uid=uid, destination=destination, references=references, due_since=since, by_query=by_query
    )


def acknowledged(ledger: Ledger, asked: Transaction, wait_s: float) -> None:
    """The destination will answer: wait for it. An answer that has already arrived stands."""
    with ledger.database.writing() as connection:
        until = {"not_before": ledger.now() + timedelta(seconds=wait_s)}
        connection.execute(sa.update(promises).where(_waiting_for(asked)).values(until))


def postpone(ledger: Ledger, asked: Transaction, delay_s: float, detail: str) -> None:
    """ASKED -> DUE: the request failed, or may have; it does not count."""
    values = {"state": PromiseState.DUE, "detail": detail, "not_before": ledger.now() + timedelta(seconds=delay_s)}
    if not asked.by_query:
        values["asks"] = promises.c.asks - 1
    with ledger.database.writing() as connection:
        connection.execute(sa.update(promises).where(_waiting_for(asked)).values(values))


def refused(ledger: Ledger, asked: Transaction, detail: str) -> int:
    """ASKED -> UNCOMMITTED: the destination will never answer; how many objects."""
    return _give_up(ledger, _waiting_for(asked), detail)


def give_up(ledger: Ledger, destination: str, max_age_h: float) -> int:
    """-> UNCOMMITTED, what was asked about often enough, or could not be asked about for too long; how many."""
    now = ledger.now()
    mine = sa.and_(promises.c.destination == destination, promises.c.not_before <= now)
    in_vain = sa.and_(promises.c.state == PromiseState.ASKED, promises.c.asks >= MAX_ASKS)
    old = promises.c.first_due_at <= now - timedelta(hours=max_age_h)
    unasked = sa.and_(promises.c.state == PromiseState.DUE, old, _is_delivered())
    words = f"no answer to {MAX_ASKS} requests"
    number = _give_up(ledger, sa.and_(mine, in_vain), words)
    return number + _give_up(ledger, sa.and_(mine, unasked), f"could not be asked within {max_age_h:g} h")


def abandon(ledger: Ledger, asking: Collection[str]) -> int:
    """-> UNCOMMITTED, what is no longer to be committed by these destinations; how many."""
    return _give_up(ledger, promises.c.destination.not_in(asking), "its destination is no longer asked to commit")


def find(ledger: Ledger, transaction_uid: str) -> Transaction | None:
    """Look a transaction up by its UID, whatever its age."""
    named = sa.select(commitments).where(commitments.c.transaction_uid == transaction_uid)
    with ledger.database.reading() as connection:
        row = connection.execute(named).mappings().first()
    if row is None:
        return None
    return Transaction(id=row["id"], uid=row["transaction_uid"], destination=row["destination"])


def answer(ledger: Ledger, asked: Transaction, report: Report, delay_s: Callable[[int], float]) -> Counter[str]:
    """Settle what a report is about; how many objects were committed, sent again and given up.

    A second report changes nothing. A success counts whichever transaction it belongs to; a failure only in the
    newest one: since an older one the object may have been sent again.
    """
    done: Counter[str] = Counter()
    uids = {*report.committed, *report.failed}
    columns = (artifacts.c.sop_instance_uid, promises, deliveries.c.artifact_id, deliveries.c.state.label("sent"))
    named = sa.select(*columns).join_from(promises, deliveries).join(artifacts, artifacts.c.id == results.chosen())
    named = named.where(promises.c.destination == asked.destination, artifacts.c.sop_instance_uid.in_(uids))
    with ledger.database.writing() as connection:
        rows = connection.execute(named.with_for_update(of=promises)).mappings().all()
        good = [row for row in rows if row["sop_instance_uid"] not in report.failed and _may_commit(row["state"])]
        _commit(connection, asked, good, ledger.now())
        done["committed"] = len(good)
        for row in rows:
            reason = report.failed.get(row["sop_instance_uid"])
            if reason is not None and row["state"] in OPEN and row["commitment_id"] == asked.id:
                words = "not seen by QIDO-RS" if asked.by_query else f"commitment failed: 0x{reason:04X}"
                counted = dict(row) | {"asks": row["asks"] + asked.by_query}
                done[_fail(connection, counted, reason, words, ledger.now(), delay_s(row["asks"]))] += 1
    return done


def renew(ledger: Ledger, which: sa.ColumnElement[bool], asking: Collection[str], *, by: str) -> int:
    """-> DUE, for all that was delivered of the instances that are meant and does not wait for an answer; how many."""
    kept = sa.and_(which, instances.c.purged_at.is_(None))
    linked = sa.select(instance_artifacts.c.artifact_id).join(instances).where(kept)
    waiting = sa.select(promises.c.delivery_id).where(promises.c.state.in_(OPEN))
    delivered = sa.select(deliveries.c.id, deliveries.c.destination, deliveries.c.artifact_id).where(
        deliveries.c.artifact_id.in_(linked),
        deliveries.c.destination.in_(asking),
        deliveries.c.state == DeliveryState.DELIVERED,
        deliveries.c.id.not_in(waiting),
    )
    with ledger.database.writing() as connection:
        rows = connection.execute(delivered.order_by(deliveries.c.id).with_for_update(of=deliveries)).mappings().all()
        for row in rows:
            expect(connection, row["id"], row["destination"], ledger.now())
            _tell(connection, row, ledger.now(), "asked-again", f"by {by}")
        _set(connection, [row["id"] for row in rows], {"asks": 0, "failure_reason": None, "detail": None})
    return len(rows)


def hasten(connection: sa.Connection, destination: str, now: datetime) -> None:
    """Let what is to be asked for be due at once; it stays DUE."""
    later = sa.and_(promises.c.state == PromiseState.DUE, promises.c.not_before > now)
    mine = sa.and_(promises.c.destination == destination, later)
    connection.execute(sa.update(promises).where(mine).values(not_before=now))


def next_s(ledger: Ledger, destination: str) -> float | None:
    """Seconds until something is due to be asked about (0.0: now); None where nothing is."""
    soonest = _accepted(sa.select(sa.func.min(promises.c.not_before, type_=promises.c.not_before.type)), destination)
    with ledger.database.reading() as connection:
        at = connection.scalar(soonest.where(promises.c.state.in_(OPEN)))
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


def awaited() -> sa.ColumnElement[bool]:
    """Instances with an accepted result that awaits commitment; for retention."""
    waiting = (
        sa.select(instance_artifacts.c.instance_id)
        .join(deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id)
        .join(promises, promises.c.delivery_id == deliveries.c.id)
        .where(promises.c.state.in_(OPEN), deliveries.c.state == DeliveryState.DELIVERED)
    )
    return instances.c.id.in_(waiting)


def _accepted(chosen: sa.Select[Any], destination: str) -> sa.Select[Any]:
    """Promises of a destination about what it has accepted; none while an operator holds it."""
    here = chosen.select_from(promises).join(deliveries, deliveries.c.id == promises.c.delivery_id)
    accepted = sa.and_(promises.c.destination == destination, deliveries.c.state == DeliveryState.DELIVERED)
    return here.where(accepted, ~is_on_hold(destination))


def _is_delivered() -> sa.ColumnElement[bool]:
    delivered = sa.select(deliveries.c.id).where(deliveries.c.state == DeliveryState.DELIVERED)
    return promises.c.delivery_id.in_(delivered.where(deliveries.c.id == promises.c.delivery_id))


def _waiting_for(asked: Transaction) -> sa.ColumnElement[bool]:
    return sa.and_(promises.c.commitment_id == asked.id, promises.c.state == PromiseState.ASKED)


def _may_commit(state: str) -> bool:
    return PromiseState.COMMITTED in PROMISE_MOVES[PromiseState(state)]


def _set(connection: sa.Connection, delivery_ids: Sequence[int], values: Mapping[str, Any]) -> None:
    connection.execute(sa.update(promises).where(promises.c.delivery_id.in_(delivery_ids)).values(**values))


def _commit(connection: sa.Connection, asked: Transaction, rows: Sequence[sa.RowMapping], now: datetime) -> None:
    values = {"state": PromiseState.COMMITTED, "commitment_id": asked.id, "settled_at": now}
    _set(connection, [row["delivery_id"] for row in rows], values | {"failure_reason": None, "detail": None})
    words = "seen by QIDO-RS" if asked.by_query else f"in transaction {asked.uid}"
    for row in rows:
        _tell(connection, row, now, "committed", words)


def _fail(
    connection: sa.Connection, row: Mapping[Any, Any], reason: int, words: str, now: datetime, delay_s: float
) -> str:
    """The destination lost an object that it accepted: send the same bytes again, unless that is hopeless."""
    if reason in HOPELESS or row["asks"] >= MAX_ASKS or not _send_again(connection, row, words, now, delay_s):
        words += f", {HOPELESS[reason]}" if reason in HOPELESS else ""
        values = {"state": PromiseState.UNCOMMITTED, "failure_reason": reason, "detail": words, "settled_at": now}
        _set(connection, [row["delivery_id"]], values | {"asks": row["asks"]})
        _tell(connection, row, now, "uncommitted", words)
        return "given up"
    values = {"state": PromiseState.DUE, "commitment_id": None, "failure_reason": reason, "detail": words}
    _set(connection, [row["delivery_id"]], values | {"asks": row["asks"]})
    return "sent again"


def _send_again(connection: sa.Connection, row: Mapping[Any, Any], words: str, now: datetime, delay_s: float) -> bool:
    """Delivery DELIVERED -> READY, its instances -> REPORTED; False where that must not be.

    Retention has taken the bytes; or another answer, or a corrected version, has taken the object's place: whoever
    removed it from the archive does not want it back.
    """
    kept = instances.c.purged_at.is_(None)
    users = results.lock_users(connection, row["artifact_id"])
    linked = sa.select(instances).join(instance_artifacts, instance_artifacts.c.instance_id == instances.c.id)
    linked = linked.where(instance_artifacts.c.artifact_id == row["artifact_id"], kept)
    current = connection.execute(linked.where(instance_artifacts.c.outdated_at.is_(None))).mappings().all()
    if row["sent"] != DeliveryState.DELIVERED or all(results.is_replaced(connection, user) for user in current):
        return False
    due = FREE | {"state": DeliveryState.READY, "attempts": 0, "last_error": words, "first_due_at": now}
    due |= {"not_before": now + timedelta(seconds=delay_s), "late_from": None}  # it was there in time
    connection.execute(sa.update(deliveries).where(deliveries.c.id == row["delivery_id"]).values(due))
    settled = instances.c.state.in_(
        (InstanceState.DELIVERED, InstanceState.DEAD, InstanceState.SET_ASIDE, InstanceState.SHADOW)
    )
    reported = {"state": InstanceState.REPORTED, "updated_at": now, "reason": None}
    connection.execute(sa.update(instances).where(instances.c.id.in_(users), settled, kept).values(reported))
    _tell(connection, row, now, "uncommitted", f"{words}; sent again")
    return True


def _give_up(ledger: Ledger, which: sa.ColumnElement[bool], detail: str) -> int:
    """In short transactions, so that the receiver does not wait."""
    number = 0
    while some := _give_some_up(ledger, sa.and_(which, promises.c.state.in_(OPEN)), detail):
        number += some
    return number


def _give_some_up(ledger: Ledger, which: sa.ColumnElement[bool], detail: str) -> int:
    now = ledger.now()
    values = {"state": PromiseState.UNCOMMITTED, "detail": detail, "settled_at": now}
    with ledger.database.writing() as connection:
        some = sa.select(promises.c.delivery_id).where(which).order_by(promises.c.delivery_id).limit(BATCH)
        delivery_ids = list(connection.scalars(some.with_for_update(skip_locked=True)))
        _set(connection, delivery_ids, values)
        found = sa.select(deliveries.c.destination, deliveries.c.artifact_id).where(deliveries.c.id.in_(delivery_ids))
        for row in connection.execute(found).mappings().all():
            _tell(connection, row, now, "uncommitted", detail)
    return len(delivery_ids)


def _tell(connection: sa.Connection, row: Mapping[Any, Any], now: datetime, what: str, detail: str) -> None:
    """Add it to the history of each instance that has this result."""
    kind = connection.scalar(sa.select(artifacts.c.kind).where(artifacts.c.id == row["artifact_id"]))
    users = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id == row["artifact_id"])
    note(connection, list(connection.scalars(users)), now, what, f"{kind} at {row['destination']}: {detail}")
