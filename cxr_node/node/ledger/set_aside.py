"""Set aside: an operator ends what is DEAD or waits, for a coded reason.

Nothing is deleted: `retry` undoes it, and the events keep who did it and why. Knows no DICOM and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger import results, ripening
from cxr_node.node.ledger.ledger import Ledger, conclude
from cxr_node.node.ledger.move_statements import of_instance
from cxr_node.node.ledger.states import (
    FREE,
    UNSENT,
    DeadReason,
    DeliveryState,
    InstanceState,
    SetAsideReason,
    StudyState,
    is_unjudged,
    note,
)
from cxr_node.node.ledger.tables import deliveries, instances

_ABOUT_THE_IMAGE = (SetAsideReason.WRONG_PATIENT, SetAsideReason.DUPLICATE, SetAsideReason.TEST_IMAGE)
"""For the others it need not be sent: nothing is wrong with a report that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """The outcome."""

    ids: tuple[int, ...] = ()
    """Instances that were set aside, whole or in part."""
    deliveries: int = 0
    in_hand: int = 0
    """Left as they were: being judged or sent."""


def set_aside(
    ledger: Ledger, instance_ids: Sequence[int], reason: SetAsideReason, *, by: str, destination: str | None = None
) -> SetAside:
    """-> SET_ASIDE for these instances and their deliveries, as far as they are DEAD or wait; one transaction each.

    An image that its study waits for is in no report of it. One whose report waits to be sent, and which should not be
    in it, is taken out: the report is made again of the others.

    Parameters
    ----------
    destination : only its deliveries
    """
    ids, sent, in_hand = [], 0, 0
    for instance_id in instance_ids:
        with ledger.database.writing() as connection:
            ended, number, busy = _set_aside(connection, instance_id, destination, _Words(reason, by, ledger.now()))
        ids += [instance_id] if ended or number else []
        sent, in_hand = sent + number, in_hand + busy
    return SetAside(ids=tuple(ids), deliveries=sent, in_hand=in_hand)


@dataclass(frozen=True, slots=True)
class _Words:
    """Reason, person and time."""

    reason: SetAsideReason
    by: str
    now: datetime

    def __str__(self) -> str:
        return f"by {self.by}, {self.now:%Y-%m-%d %H:%M:%S} UTC"


def _set_aside(
    connection: sa.Connection, instance_id: int, destination: str | None, words: _Words
) -> tuple[bool, int, int]:
    """Returns whether the instance itself is set aside, how many of its deliveries are, and how many are in hand."""
    found = sa.select(instances).where(instances.c.id == instance_id).with_for_update()
    row = connection.execute(found).mappings().first()
    if row is None:
        return False, 0, 0
    leaves = destination is None and _leaves_its_study(connection, row, words)
    ends = leaves or (destination is None and is_unjudged(row))
    if ends and row["lease_until"] is not None and row["lease_until"] > words.now:
        return False, 0, 1
    if ends:
        values: dict[str, Any] = FREE | {"state": InstanceState.SET_ASIDE, "updated_at": words.now, "alone": 0}
        values |= {"reason": words.reason, "sentence": str(words)}
        connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(values))
        note(connection, [instance_id], words.now, "set-aside", f"{words.reason}, by {words.by}")
    if leaves:  # before its deliveries end: the other images wait for another report
        ripening.leave(connection, instance_id, row["study_instance_uid"], words.now)
    return ends, *_end_deliveries(connection, instance_id, destination, words)


def _leaves_its_study(connection: sa.Connection, row: sa.RowMapping, words: _Words) -> bool:
    """Whether it is to be in no report of its study from now on; what was delivered everywhere stays."""
    if not ripening.is_in_study(connection, row["id"]):
        return False
    is_reported = bool(connection.scalar(sa.select(ripening.is_reported(row["id"]))))
    if not is_reported and ripening.state_of(connection, row["study_instance_uid"]) is not StudyState.REPORTED:
        return True
    if words.reason not in _ABOUT_THE_IMAGE:
        return False
    waits = sa.and_(of_instance(row["id"]), deliveries.c.state.in_((*UNSENT, DeliveryState.DEAD)))
    return is_unjudged(row) or bool(connection.scalar(sa.select(sa.exists().where(waits))))


def _end_deliveries(
    connection: sa.Connection, instance_id: int, destination: str | None, words: _Words
) -> tuple[int, int]:
    """Set the deliveries aside that are DEAD or wait; returns how many, and how many are being sent now."""
    mine = sa.and_(of_instance(instance_id), deliveries.c.state.in_((*UNSENT, DeliveryState.DEAD)))
    if destination is not None:
        mine = sa.and_(mine, deliveries.c.destination == destination)
    free = sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= words.now)
    values = FREE | {"state": DeliveryState.SET_ASIDE, "reason": words.reason, "last_error": str(words)}
    ended = sa.update(deliveries).where(mine, free).values(values)
    rows = connection.execute(ended.returning(deliveries.c.artifact_id, deliveries.c.destination)).all()
    concerned: set[int] = set()
    for row in rows:
        users = results.lock_users(connection, row.artifact_id)
        note(connection, users, words.now, "set-aside", f"to {row.destination}: {words.reason}, by {words.by}")
        concerned.update(users)
    ended_so = sa.or_(instances.c.reason == DeadReason.UNDELIVERED, instances.c.state == InstanceState.SHADOW)
    undelivered = sa.and_(instances.c.id.in_(concerned), ended_so)
    reported = {"state": InstanceState.REPORTED, "updated_at": words.now, "reason": None}
    connection.execute(sa.update(instances).where(undelivered).values(reported))
    conclude(connection, sorted(concerned), words.now)
    return len(rows), int(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(mine)) or 0)
