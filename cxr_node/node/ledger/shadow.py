"""Results in shadow: made, kept and counted, and not sent until a person says so; or expired.

A delivery in SHADOW is claimed by no courier. Here alone it leaves that state, in short transactions: a process that
dies in the middle leaves some of them due and the others in shadow, and whoever repeats the command sends the rest.
Nothing is due twice. Knows no configuration but what it is told, no DICOM and no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger import duties, results
from cxr_node.node.ledger.duties import Held
from cxr_node.node.ledger.ledger import Ledger, conclude
from cxr_node.node.ledger.states import DeliveryState, InstanceState, OwnReason, note
from cxr_node.node.ledger.tables import IS_SHADOW, deliveries, instance_artifacts, instances

_BATCH = 100  # short transactions: the receiver waits for none of them
_Move = Callable[[sa.Connection, Sequence[Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is in shadow for one destination."""

    objects: int
    since: datetime
    """When the oldest of them was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """What is meant of it: all, or less."""

    destination: str | None = None
    images: Sequence[sa.ColumnElement[bool]] = ()
    """Conditions on `instances`: with an image goes all of its study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What came of it."""

    objects: Counter[str] = field(default_factory=Counter)
    """Due now, or expired, by destination."""
    replaced: Counter[str] = field(default_factory=Counter)
    """Not sent: a later report or a corrected version took their place before anybody had them."""


def look(ledger: Ledger, which: Which | None = None) -> dict[str, Kept]:
    """What is in shadow, by destination."""
    at = deliveries.c.first_due_at
    columns = (deliveries.c.destination, sa.func.count(), sa.func.min(at, type_=at.type))
    counted = sa.select(*columns).where(*_meant(which or Which())).group_by(deliveries.c.destination)
    with ledger.database.reading() as connection:
        rows = connection.execute(counted.order_by(deliveries.c.destination)).all()
    return {name: Kept(objects=number, since=since) for name, number, since in rows}


def send(ledger: Ledger, which: Which, *, by: str) -> Released:
    """SHADOW -> READY, each once, and sent whatever the configuration says from then on.

    They count as due for the first time now. What a later report of its study or a corrected version of its image has
    replaced is set aside: an archive that never had it needs no two answers.
    """
    told = Released()

    def move(connection: sa.Connection, rows: Sequence[Any]) -> None:
        now, concerned = ledger.now(), set[int]()
        for row in rows:
            users = results.lock_users(connection, row.artifact_id)
            is_present = _is_present(connection, users, row.artifact_id)
            values = _due(now) if is_present else _ended(OwnReason.REPLACED, "it was in shadow")
            connection.execute(sa.update(deliveries).where(deliveries.c.id == row.id).values(values))
            (told.objects if is_present else told.replaced)[row.destination] += 1
            concerned.update(users)
        _reopen(connection, sorted(concerned), now, f"sent, by {by}")

    _in_batches(ledger, which, move)
    return told


def expire(ledger: Ledger, which: Which, *, by: str) -> Released:
    """SHADOW -> SET_ASIDE: it is not to be sent; `retry` takes that back while its bytes are kept."""
    told = Released()

    def move(connection: sa.Connection, rows: Sequence[Any]) -> None:
        told.objects.update(row.destination for row in rows)
        now = ledger.now()
        concerned = _expired(connection, rows, f"by {by}, {now:%Y-%m-%d %H:%M:%S} UTC")
        _reopen(connection, concerned, now, f"expired, by {by}")

    _in_batches(ledger, which, move)
    return told


def expire_old(ledger: Ledger, keep_days: float, held: Held | None = None) -> int:
    """As `expire`, for what has been in shadow for so long; retention then counts from when it was made.

    Raises
    ------
    LostDutyError : another machine sweeps now; `held` is our lease of that duty.
    """
    before, words = ledger.now() - timedelta(days=keep_days), f"after {keep_days:g} days"

    def move(connection: sa.Connection, rows: Sequence[Any]) -> None:
        duties.require(connection, held, ledger.now())
        concerned = _expired(connection, rows, words)
        _set_aside(connection, concerned, words)
        note(connection, concerned, ledger.now(), "shadow", f"expired {words}")

    return _in_batches(ledger, Which(), move, deliveries.c.first_due_at < before)


def _meant(which: Which) -> Iterator[sa.ColumnElement[bool]]:
    yield sa.and_(IS_SHADOW)
    if which.destination is not None:
        yield deliveries.c.destination == which.destination
    if which.images:
        named = sa.select(instances.c.study_instance_uid).where(*which.images)
        linked = sa.select(instance_artifacts.c.artifact_id).join(instances)
        yield deliveries.c.artifact_id.in_(linked.where(instances.c.study_instance_uid.in_(named)))


def _in_batches(ledger: Ledger, which: Which, move: _Move, *more: sa.ColumnElement[bool]) -> int:
    """Move some deliveries after the other, the first made first, each batch in one transaction; how many."""
    columns = (deliveries.c.id, deliveries.c.destination, deliveries.c.artifact_id)
    last_id, number = 0, 0
    while True:
        found = sa.select(*columns).where(*_meant(which), *more, deliveries.c.id > last_id)
        with ledger.database.writing() as connection:
            some = found.order_by(deliveries.c.id).limit(_BATCH).with_for_update(of=deliveries)
            rows = connection.execute(some).all()
            if rows:
                move(connection, rows)
        if not rows:
            return number
        last_id, number = rows[-1].id, number + len(rows)


def _is_present(connection: sa.Connection, users: Sequence[int], artifact_id: int) -> bool:
    """Whether some image has the result still, in the version that counts."""
    current = sa.and_(
        instance_artifacts.c.artifact_id == artifact_id,
        instance_artifacts.c.outdated_at.is_(None),
        instance_artifacts.c.instance_id.in_(users),
    )
    linked = sa.select(instances).join(instance_artifacts, instance_artifacts.c.instance_id == instances.c.id)
    rows = connection.execute(linked.where(current)).mappings().all()
    return not all(results.is_replaced(connection, row) for row in rows)


def _due(now: datetime) -> dict[str, Any]:
    due = {"state": DeliveryState.READY, "attempts": 0, "not_before": now, "first_due_at": now}
    return due | {"late_from": now, "released_at": now, "last_error": None}


def _ended(reason: OwnReason, words: str) -> dict[str, Any]:
    return {"state": DeliveryState.SET_ASIDE, "reason": reason, "last_error": words}


def _expired(connection: sa.Connection, rows: Sequence[Any], words: str) -> list[int]:
    """Expire deliveries; the images that they are about."""
    ended = _ended(OwnReason.SHADOW_EXPIRED, words)
    connection.execute(sa.update(deliveries).where(deliveries.c.id.in_([row.id for row in rows])).values(ended))
    users: set[int] = set()
    for artifact_id in sorted({row.artifact_id for row in rows}):
        users.update(results.lock_users(connection, artifact_id))
    return sorted(users)


def _reopen(connection: sa.Connection, instance_ids: Collection[int], now: datetime, words: str) -> None:
    """SHADOW -> REPORTED, and on from there where nothing of them is due."""
    mine = sa.and_(instances.c.id.in_(instance_ids), instances.c.state == InstanceState.SHADOW)
    values = {"state": InstanceState.REPORTED, "updated_at": now}
    connection.execute(sa.update(instances).where(mine).values(values))
    note(connection, sorted(instance_ids), now, "shadow", words)
    conclude(connection, sorted(instance_ids), now)


def _set_aside(connection: sa.Connection, instance_ids: Collection[int], words: str) -> None:
    """SHADOW -> SET_ASIDE where nothing of them is in shadow any more, and as old as they were."""
    linked = sa.select(instance_artifacts.c.instance_id).join(
        deliveries, deliveries.c.artifact_id == instance_artifacts.c.artifact_id
    )
    here = (instance_artifacts.c.instance_id == instances.c.id, instance_artifacts.c.outdated_at.is_(None))
    still = linked.where(*here, IS_SHADOW).correlate(instances).exists()
    mine = sa.and_(instances.c.id.in_(instance_ids), instances.c.state == InstanceState.SHADOW, ~still)
    values = {"state": InstanceState.SET_ASIDE, "reason": OwnReason.SHADOW_EXPIRED, "sentence": words}
    connection.execute(sa.update(instances).where(mine).values(values))
