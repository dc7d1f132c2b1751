"""Resend, rejudge, admit, retry: the moves of an operator, one transaction per instance.

`resend` sends known bytes under their UIDs; `rejudge` judges received bytes under the configuration of today, and
the same answer sends nothing twice; `admit` accepts an image's changed patient or study.
Knows no DICOM and no socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Reason
from cxr_node.errors import DataError
from cxr_node.node.ledger import results
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.move_statements import of_instance
from cxr_node.node.ledger.ripening import begins_as, is_in_study, is_reported, state_of, wait_again, wanting
from cxr_node.node.ledger.stages import has_ended
from cxr_node.node.ledger.states import (
    FREE,
    OPEN,
    DeadReason,
    DeliveryState,
    InstanceState,
    StudyState,
    is_unjudged,
    note,
)
from cxr_node.node.ledger.tables import alternatives, artifacts, deliveries, instance_artifacts, instances
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.result_kinds import ReportPer, ResultKind, Wish

_REVIVED_AT_ONCE = 100  # short transactions: the receiver waits for none of them


class Left(StrEnum):
    """Why something stays DEAD."""

    PURGED = "its bytes were deleted after spool.retention_days; send the image again"
    ELSEWHERE = "it is DEAD only at other destinations, or at those that are not configured"
    UNSENT = "it died while it was judged, so no destination is concerned"


@dataclass(frozen=True, slots=True)
class Retried:
    """Outcome of a retry."""

    instances: int = 0
    """Back in the queue, whole or with some of their deliveries."""
    deliveries: int = 0
    left: Counter[Left] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What may be tried again, and who asks for it."""

    destinations: Collection[str]
    """Names of those that may be tried."""
    by: str
    unjudged: bool = True
    """Also what died, or was set aside, before it was judged."""
    set_aside: bool = False
    """Also what an operator set aside."""

    @property
    def ends(self) -> tuple[str, ...]:
        """States that are left; instances and deliveries have the same words for them."""
        return (DeliveryState.DEAD, DeliveryState.SET_ASIDE) if self.set_aside else (DeliveryState.DEAD,)


def retry(ledger: Ledger, which: sa.ColumnElement[bool], again: Again) -> Retried:
    """DEAD or SET_ASIDE -> READY or RECEIVED, for instances that a condition names."""
    last_id, moved, sent, left = 0, 0, 0, Counter[Left]()
    ended = sa.or_(*(has_ended(InstanceState(each)) for each in again.ends))
    while True:
        found = sa.select(instances).where(which, ended, instances.c.id > last_id).order_by(instances.c.id)
        with ledger.database.writing() as connection:
            rows = connection.execute(found.limit(_REVIVED_AT_ONCE).with_for_update()).mappings().all()
            for row in rows:
                came = _revive(connection, row, again, ledger.now())
                if isinstance(came, Left):
                    left[came] += 1
                else:
                    moved, sent = moved + 1, sent + came
        if not rows:
            return Retried(moved, sent, left)
        last_id = rows[-1]["id"]


def _revive(connection: sa.Connection, row: sa.RowMapping, again: Again, now: datetime) -> int | Left:
    """Put one instance back: how many of its deliveries are due again, or why it stays."""
    if row["purged_at"] is not None:
        return Left.PURGED
    if is_unjudged(row):  # it may have results of an earlier judgement
        if not again.unjudged:
            return Left.UNSENT
        _move(connection, [row["id"]], InstanceState.RECEIVED, again.by, now)
        return 0
    to = _way_back(connection, row, again)
    if row["reason"] == DeadReason.UNREPORTED and to is None:
        return Left.UNSENT
    current = of_instance(row["id"], instance_artifacts.c.outdated_at.is_(None))
    mine = sa.and_(deliveries.c.state.in_(again.ends), deliveries.c.destination.in_(again.destinations))
    due = FREE | {"attempts": 0, "not_before": now, "state": DeliveryState.READY, "first_due_at": now}
    due["late_from"] = now
    was_set_aside = deliveries.c.state == DeliveryState.SET_ASIDE
    due |= {"reason": None, "last_error": sa.case((was_set_aside, None), else_=deliveries.c.last_error)}
    sent = list(
        connection.scalars(sa.update(deliveries).where(current, mine).values(due).returning(deliveries.c.artifact_id))
    )
    if not sent and to is None:
        return Left.ELSEWHERE
    users = {user for artifact_id in sent for user in results.lock_users(connection, artifact_id)}
    over = sa.and_(instances.c.state.in_(again.ends), instances.c.purged_at.is_(None))
    waiting = sa.select(instances.c.id).where(instances.c.id.in_(users), over)
    back = list(connection.scalars(waiting))
    _move(connection, back, InstanceState.REPORTED, again.by, now)
    if to is not None:
        _move(connection, [row["id"]], to, again.by, now)
    if to is InstanceState.REPORTED:
        wait_again(connection, row["study_instance_uid"], now)
    if row["id"] not in back and to is None:
        note(connection, [row["id"]], now, "retried", f"by {again.by}, {len(sent)} deliveries")
    return len(sent)


def _way_back(connection: sa.Connection, row: sa.RowMapping, again: Again) -> InstanceState | None:
    """Where an image goes whose study was not reported (its report is tried again), or which was taken out of it."""
    if not again.unjudged or row["state"] not in again.ends:
        return None
    if row["reason"] == DeadReason.UNREPORTED:
        return InstanceState.REPORTED
    is_out = row["state"] == InstanceState.SET_ASIDE and not is_in_study(connection, row["id"])
    return InstanceState.RECEIVED if is_out and state_of(connection, row["study_instance_uid"]) else None


def _move(connection: sa.Connection, instance_ids: list[int], to: InstanceState, by: str, now: datetime) -> None:
    values: dict[str, Any] = FREE | {"attempts": 0, "not_before": now, "updated_at": now, "state": to}
    values |= {"reason": None, "sentence": None}
    connection.execute(sa.update(instances).where(instances.c.id.in_(instance_ids)).values(values))
    note(connection, instance_ids, now, "retried", f"by {by}, back to {to}")


ADMITTED = "admitted"
"""Name of the note next to an object that an operator admitted: it outlives the ledger."""
_BATCH = 500  # names in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """Outcome of a resend."""

    due: Counter[str] = field(default_factory=Counter)
    """Objects due again, or for the first time, by destination."""
    waiting: int = 0
    """Objects that were due already."""
    shadow: int = 0
    """Objects that stay in shadow, or begin there: `shadow` alone sends them."""
    purged: int = 0
    """Instances whose results retention has deleted."""
    replaced: int = 0
    """Instances left out because a corrected version has taken their place."""
    without: int = 0
    """Instances that have no results to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """Outcome of a rejudge or admit."""

    queued: int = 0
    waiting: int = 0
    """Already in the queue, or leased by a worker."""
    purged: int = 0
    """Images whose bytes retention has deleted."""


def find(ledger: Ledger, *which: sa.ColumnElement[bool], since: datetime | None = None) -> list[int]:
    """Rows of the instances that are meant, the first received first; `since` is a time of receipt."""
    after = [] if since is None else [sa.func.coalesce(instances.c.repeated_at, instances.c.received_at) >= since]
    with ledger.database.reading() as connection:
        found = sa.select(instances.c.id).where(*which, *after)
        return list(connection.scalars(found.order_by(instances.c.id)))


def rejected_for(reason: Reason) -> sa.ColumnElement[bool]:
    """Instances that were rejected for a reason."""
    return sa.and_(instances.c.state == InstanceState.REJECTED, instances.c.reason == reason)


def conflicts(ledger: Ledger, instance_ids: Sequence[int]) -> list[int]:
    """Rows rejected for an identity conflict, with all others of the same patient in the same study.

    Raises
    ------
    DataError : there are none, or they name several patients of one study, of which only one can be right.
    """
    refused = rejected_for(Reason.IDENTITY_CONFLICT)
    with ledger.database.reading() as connection:
        rows = [row for row in _rows(connection, instance_ids) if row["reason"] == Reason.IDENTITY_CONFLICT]
        pairs = {(row["study_instance_uid"], row["patient_key"]) for row in rows}
        if len({study for study, _ in pairs}) < len(pairs):
            raise DataError("these images name several patients of one study; name the one image that is right")
        found: set[int] = set()
        for study, patient in pairs:
            same = sa.and_(instances.c.study_instance_uid == study, instances.c.patient_key == patient)
            found |= set(connection.scalars(sa.select(instances.c.id).where(refused, same)))
    if not found:
        raise DataError("nothing of it was rejected because its patient or study contradicts earlier images")
    return sorted(found)


def resend(
    ledger: Ledger,
    spool: Spool,
    instance_ids: Sequence[int],
    wishes: Mapping[str, Wish],
    *,
    named: bool,
    by: str,
) -> Resent:
    """Make the present results of instances due at destinations that want them: READY again, or for the first time.

    `named` : an operator named these images; results that a corrected version replaced go only where nothing else is
    named: a patient's wrong name must not be sent along with the right one.
    """
    with ledger.database.reading() as connection:
        old = {row["id"] for row in _rows(connection, instance_ids) if results.is_replaced(connection, row)}
    if named and len(old) == len(instance_ids):
        old = set()
    told: Counter[str] = Counter(replaced=len(old))
    due: Counter[str] = Counter()
    order = _Order(spool, wishes, by)
    for instance_id in (each for each in instance_ids if each not in old):
        with ledger.database.writing() as connection:
            ending, added = _resend(connection, instance_id, order, ledger.now())
        told[ending] += 1
        told += Counter({word: added.pop(word, 0) for word in (_WAITING, _SHADOW)})
        due += added
    return Resent(
        due=due,
        waiting=told[_WAITING],
        shadow=told[_SHADOW],
        purged=told["purged"],
        replaced=told["replaced"],
        without=told["without"],
    )


def rejudge(ledger: Ledger, instance_ids: Sequence[int], *, by: str) -> Rejudged:
    """-> RECEIVED, for images whose bytes are kept: judged as if they came now."""
    told: Counter[str] = Counter()
    for instance_id in instance_ids:
        with ledger.database.writing() as connection:
            told[_rejudge(connection, instance_id, ledger.now(), f"judged again, by {by}")] += 1
    return Rejudged(queued=told["queued"], waiting=told["waiting"], purged=told["purged"])


def admit(ledger: Ledger, spool: Spool, instance_ids: Sequence[int], *, by: str) -> Rejudged:
    """REJECTED -> RECEIVED, and from now on the images' patient and study are those of their study and series.

    The note next to the object comes first: a rebuilt ledger admits it too.
    """
    told: Counter[str] = Counter()
    with ledger.database.reading() as connection:
        rows = list(_rows(connection, instance_ids))
    for row in rows:
        if row["purged_at"] is None:
            spool.note(row["content_sha256"], ADMITTED, ledger.now().isoformat(), Area.OBJECTS)
        with ledger.database.writing() as connection:
            admitted = sa.update(instances).where(instances.c.id == row["id"]).values(admitted_at=ledger.now())
            connection.execute(admitted)
            told[_rejudge(connection, row["id"], ledger.now(), f"patient and study accepted, by {by}")] += 1
    return Rejudged(queued=told["queued"], waiting=told["waiting"], purged=told["purged"])


def _rows(connection: sa.Connection, instance_ids: Sequence[int]) -> Iterator[sa.RowMapping]:
    for start in range(0, len(instance_ids), _BATCH):
        some = instances.c.id.in_(instance_ids[start : start + _BATCH])
        yield from connection.execute(sa.select(instances).where(some).order_by(instances.c.id)).mappings().all()


def _rejudge(connection: sa.Connection, instance_id: int, now: datetime, words: str) -> str:
    row = connection.execute(sa.select(instances).where(instances.c.id == instance_id).with_for_update()).mappings()
    state, purged_at = next(((each["state"], each["purged_at"]) for each in row), (None, None))
    if state is None or purged_at is not None:
        return "purged"
    if state == InstanceState.RECEIVED:
        return "waiting"
    values: dict[str, Any] = dict.fromkeys(
        ("reason", "sentence", "verdict", "abstain_reason", "probability", "rules_sha256")
    )
    values |= FREE | {"state": InstanceState.RECEIVED, "attempts": 0, "alone": 0, "not_before": now, "updated_at": now}
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(values))
    note(connection, [instance_id], now, "rejudged", words)
    return "queued"


@dataclass(frozen=True, slots=True)
class _Order:
    """What an operator wants to be sent again."""

    spool: Spool
    wishes: Mapping[str, Wish]
    by: str
    done: set[int] = field(default_factory=set)
    """Results that are seen to: several images share the report of their study, and it goes once."""


_WAITING, _SHADOW = " waiting", " shadow"
"""What an object is that is not due for being sent again; no destination has such a name."""


def _resend(connection: sa.Connection, instance_id: int, order: _Order, now: datetime) -> tuple[str, Counter[str]]:
    """Outcome for one instance, and how many objects are due, by destination, or are `_WAITING` or in `_SHADOW`."""
    due: Counter[str] = Counter()
    row = (
        connection.execute(sa.select(instances).where(instances.c.id == instance_id).with_for_update()).mappings().one()
    )
    found = _present(connection, instance_id)
    if row["state"] == InstanceState.RECEIVED or not found:  # REJECTED: the note that says so, where there is one
        return "without", due
    if not all(_is_kept(connection, order.spool, artifact["id"]) for artifact in found):
        return "purged", due
    with_report = bool(connection.scalar(sa.select(is_reported(instance_id))))
    without = not with_report and state_of(connection, row["study_instance_uid"]) is not StudyState.WAITING
    for artifact in found:
        wanted = _wanted(order.wishes, artifact, with_report=with_report, without_report=without)
        for name in () if artifact["id"] in order.done else wanted:
            begins = begins_as(order.wishes[name], row["study_instance_uid"])
            came = _make_due(connection, artifact["id"], name, begins, row["priority"], now)
            due[came or name] += 1
        _reopen(connection, artifact["id"], now)
    order.done.update(artifact["id"] for artifact in found)
    if sent := sorted((name, number) for name, number in due.items() if name not in (_WAITING, _SHADOW)):
        words = ", ".join(f"{number} objects to {name}" for name, number in sent)
        note(connection, [instance_id], now, "resent", f"by {order.by}: {words}")
    return "sent", due


def _wanted(
    wishes: Mapping[str, Wish], artifact: sa.RowMapping, *, with_report: bool, without_report: bool
) -> list[str]:
    """Destinations that want a result; of a study the pictures go with its report, and notes where there is none."""
    kind, per = ResultKind(artifact["kind"]), ReportPer(artifact["per"])
    goes = without_report if kind is ResultKind.NOT_ANALYSED else with_report and per is ReportPer.STUDY
    at_once = kind is ResultKind.NOT_ANALYSED or per is ReportPer.IMAGE
    found = wanting(wishes, kind, ReportPer.IMAGE) if at_once else []
    return found + (wanting(wishes, kind, ReportPer.STUDY) if goes else [])


def _present(connection: sa.Connection, instance_id: int) -> Sequence[sa.RowMapping]:
    """Results of an instance, without the alternatives of another SOP Class and without those that are outdated."""
    found = (
        sa.select(artifacts.c.id, artifacts.c.kind, artifacts.c.per)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == artifacts.c.id)
        .where(
            instance_artifacts.c.instance_id == instance_id,
            instance_artifacts.c.outdated_at.is_(None),
            artifacts.c.id.not_in(sa.select(alternatives.c.alternative_id)),
        )
    )
    return connection.execute(found.order_by(artifacts.c.id)).mappings().all()


def _is_kept(connection: sa.Connection, spool: Spool, artifact_id: int) -> bool:
    """Whether the bytes of a result are in the spool, in every SOP Class.

    By the files: a radiograph that came back after its retention is there again, and its results are not.
    """
    choices = results.find(connection, artifact_id).sop_class_choices
    return all(spool.has(Area.RESULTS, choice.content_sha256) for choice in choices)


def _make_due(
    connection: sa.Connection, artifact_id: int, destination: str, begins: DeliveryState, priority: int, now: datetime
) -> str | None:
    """-> READY, or into shadow for the first time, as it `begins`; `_WAITING` or `_SHADOW` where it is not due anew."""
    here = sa.and_(deliveries.c.artifact_id == artifact_id, deliveries.c.destination == destination)
    known = sa.select(deliveries.c.state, deliveries.c.released_at).where(here)
    row = connection.execute(known.with_for_update()).first()
    due: dict[str, Any] = {"attempts": 0, "not_before": now, "first_due_at": now, "late_from": now}
    if row is None:
        new = due | {"state": begins, "artifact_id": artifact_id, "destination": destination, "priority": priority}
        connection.execute(sa.insert(deliveries), new)
        return _SHADOW if begins is DeliveryState.SHADOW else None
    if row.state == DeliveryState.SHADOW or (begins is DeliveryState.SHADOW and row.released_at is None):
        return _SHADOW
    if row.state in OPEN:
        connection.execute(sa.update(deliveries).where(here).values(late_from=now))  # a person wants it now
        return _WAITING
    due |= {"state": DeliveryState.READY, "last_error": None, "reason": None}
    connection.execute(sa.update(deliveries).where(here).values(FREE | due))
    return None


def _reopen(connection: sa.Connection, artifact_id: int, now: datetime) -> None:
    """DELIVERED, DEAD, SET_ASIDE or SHADOW -> REPORTED, for the instances of a result of which something is due."""
    users = results.lock_users(connection, artifact_id)
    settled = sa.and_(
        instances.c.id.in_(users),
        instances.c.state.in_(
            (InstanceState.DELIVERED, InstanceState.DEAD, InstanceState.SET_ASIDE, InstanceState.SHADOW)
        ),
        instances.c.purged_at.is_(None),
    )
    open_ = sa.select(deliveries.c.id).where(
        deliveries.c.artifact_id == artifact_id, deliveries.c.state.in_((DeliveryState.READY, DeliveryState.WAIT))
    )
    values = {"state": InstanceState.REPORTED, "updated_at": now, "reason": None, "sentence": None}
    connection.execute(sa.update(instances).where(settled, open_.exists()).values(values))
