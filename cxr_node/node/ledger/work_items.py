"""Work items of a UPS manager: each from before it is claimed until its manager knows how it ended.

The row, with the Transaction UID by which the item is ours, is durable before the manager is asked for it: whoever
comes after a process that died finds it, and asks again under the same UID. An item is leased as any work is. Nothing
here names a patient, and nothing here asks a manager: `deliver/worklist_loop` does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Priority
from cxr_node.node.ledger import duties
from cxr_node.node.ledger.duties import Held
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.prepared import value
from cxr_node.node.ledger.states import FREE, Claim, claim, due_at, held, insert_all, insert_once, note, pick
from cxr_node.node.ledger.tables import instances
from cxr_node.node.ledger.work_item_tables import work_item_images, work_items

_BATCH = 100


class WorkState(StrEnum):
    """Where an item is."""

    CLAIMING = "CLAIMING"
    """To be asked for; or it was, and no answer came."""
    CLAIMED = "CLAIMED"
    """Ours and IN PROGRESS: its images are awaited or judged, or the report is on its way."""
    COMPLETING = "COMPLETING"
    """Its report is stored; the manager is to be told, or was, and no answer came."""
    CANCELING = "CANCELING"
    """It is given up; the manager is to be told, or was, and no answer came."""
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    PASSED_OVER = "PASSED_OVER"
    """It never was ours: another performer has it, or it ended before."""
    WITHDRAWN = "WITHDRAWN"
    """It was ours, and the manager ended it or took it back."""


WORK_MOVES: Mapping[WorkState, frozenset[WorkState]] = {
    WorkState.CLAIMING: frozenset({WorkState.CLAIMED, WorkState.PASSED_OVER}),
    WorkState.CLAIMED: frozenset({WorkState.COMPLETING, WorkState.CANCELING, WorkState.WITHDRAWN}),
    WorkState.COMPLETING: frozenset({WorkState.COMPLETED, WorkState.CANCELING, WorkState.WITHDRAWN}),
    # a manager that refused to complete it, and had completed it all the same
    WorkState.CANCELING: frozenset({WorkState.CANCELED, WorkState.COMPLETED, WorkState.WITHDRAWN}),
    WorkState.COMPLETED: frozenset(),
    WorkState.CANCELED: frozenset(),
    WorkState.PASSED_OVER: frozenset(),
    WorkState.WITHDRAWN: frozenset(),
}
OPEN_ITEMS = tuple(state for state, moves in WORK_MOVES.items() if moves)
_TOLD = (WorkState.CLAIMED, WorkState.COMPLETED, WorkState.CANCELED, WorkState.WITHDRAWN)


class CancelReason(StrEnum):
    """Why an item was given up: stable words for ledger, logs, status and tests."""

    IMAGES_MISSING = "images-missing"
    """They did not all come within `images_within_min`."""
    NOT_ANALYSED = "not-analysed"
    """All of them were rejected."""
    FAULT = "fault"
    """No report of them could be made."""
    NOT_STORED = "not-stored"
    """No archive took the report."""
    SET_ASIDE = "set-aside"
    """An operator ended its images."""
    TIME_IS_UP = "time-is-up"
    """Its report was not stored within `done_within_min`."""
    REFUSED = "refused"
    """The manager does not take its completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputImage:
    """One radiograph that an item names."""

    study_instance_uid: str
    series_instance_uid: str
    """"" where the item does not say it."""
    sop_class_uid: str
    sop_instance_uid: str
    retrieve_ae_title: str
    """From where, as the item says; "" where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result object that an archive has."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Results that one archive has."""

    destination: str
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One item that is in hand."""

    claim: Claim
    worklist: str
    workitem_uid: str
    transaction_uid: str
    state: WorkState
    priority: Priority
    claimed_at: datetime | None
    updated_at: datetime
    progress: int
    reason: CancelReason | None
    detail: str | None
    stored: Stored | None
    """What it is completed with."""
    images: tuple[InputImage, ...]

    @property
    def attempts(self) -> int:
        """How often this step was tried, this time included."""
        return self.claim.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItemRow:
    """One item, for people."""

    worklist: str
    workitem_uid: str
    transaction_uid: str
    state: WorkState
    claimed_at: datetime | None
    updated_at: datetime
    progress: int
    reason: str | None
    detail: str | None
    attempts: int


def remember(
    ledger: Ledger, duty: Held | None, worklist: str, uid: str, priority: Priority, images: Sequence[InputImage]
) -> bool:
    """-> CLAIMING, with a Transaction UID that nobody can guess; False where the item is known.

    Whether the row is ours says the row: of a table that numbers its rows PostgreSQL's driver counts none inserted.

    Raises
    ------
    LostDutyError : another process looks into the worklist now.
    """
    now = ledger.now()
    values: dict[str, Any] = {"worklist": worklist, "workitem_uid": uid, "transaction_uid": f"2.25.{uuid.uuid4().int}"}
    values |= {"state": WorkState.CLAIMING, "priority": priority, "not_before": now, "updated_at": now}
    with ledger.database.writing() as connection:
        duties.require(connection, duty, now)
        insert_once(connection, work_items, values | {"attempts": 0, "fence": 0})
        mine = work_items.c.transaction_uid == values["transaction_uid"]
        row_id = connection.scalar(sa.select(work_items.c.id).where(mine))
        if row_id is None:
            return False
        insert_all(connection, work_item_images, [asdict(each) | {"work_item_id": row_id} for each in images])
    return True


_WAITING = sa.and_(work_items.c.worklist == value("worklist"), work_items.c.state.in_(OPEN_ITEMS))


def claim_item(ledger: Ledger, worklist: str, owner: str, lease_s: float) -> WorkItem | None:
    """Lease the open item of a worklist that is due next."""
    with ledger.database.leasing() as connection:
        claimed = claim(connection, work_items, _WAITING, owner, lease_s, ledger.now(), worklist=worklist)
        if claimed is None:
            return None
        row, lease = claimed
        named = sa.select(work_item_images).where(work_item_images.c.work_item_id == row["id"])
        found = connection.execute(named.order_by(work_item_images.c.id)).mappings().all()
    told = dict(row) | {"claim": lease, "state": WorkState(row["state"]), "priority": Priority(row["priority"])}
    told["reason"] = None if row["reason"] is None else CancelReason(row["reason"])
    told["stored"] = None if row["outputs"] is None else _read(row["outputs"])
    told["images"] = tuple(InputImage(**pick(InputImage, each)) for each in found)
    return WorkItem(**pick(WorkItem, told))


def next_item_s(ledger: Ledger, worklist: str) -> float | None:
    """Seconds until an item of a worklist may be claimed (0.0: now); None where none is open."""
    mine = sa.and_(work_items.c.worklist == worklist, work_items.c.state.in_(OPEN_ITEMS))
    found = sa.select(sa.func.min(due_at(work_items), type_=work_items.c.not_before.type)).where(mine)
    with ledger.database.reading() as connection:
        at = connection.scalar(found)
    return None if at is None else max(0.0, (at - ledger.now()).total_seconds())


def free(ledger: Ledger, worklist: str, owner: str) -> int:
    """Drop the leases of a dead owner of this name; how many."""
    mine = sa.and_(work_items.c.worklist == worklist, work_items.c.lease_owner == owner)
    with ledger.database.writing() as connection:
        return connection.execute(sa.update(work_items).where(mine).values(FREE)).rowcount


def known(ledger: Ledger, worklist: str, uids: Sequence[str]) -> set[str]:
    """Those of these items that have a row."""
    mine = sa.and_(work_items.c.worklist == worklist, work_items.c.workitem_uid.in_(uids))
    with ledger.database.reading() as connection:
        return set(connection.scalars(sa.select(work_items.c.workitem_uid).where(mine)))


def number_open(ledger: Ledger, worklist: str) -> int:
    """Items of a worklist that are in hand."""
    mine = sa.and_(work_items.c.worklist == worklist, work_items.c.state.in_(OPEN_ITEMS))
    with ledger.database.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(work_items).where(mine)) or 0)


def postpone(ledger: Ledger, item: WorkItem, delay_s: float, *, failed: str | None = None) -> bool:
    """Look at it again later; only a try that `failed`, for the reason that this says, counts."""
    values = FREE | {"not_before": ledger.now() + timedelta(seconds=delay_s)}
    values |= {"attempts": 0} if failed is None else {"detail": failed}
    with ledger.database.writing() as connection:
        return _change(connection, item, values)


def progressed(ledger: Ledger, item: WorkItem, percent: int, delay_s: float) -> bool:
    """Remember what the manager was told, and look at it again later."""
    values = FREE | {"progress": percent, "attempts": 0, "not_before": ledger.now() + timedelta(seconds=delay_s)}
    with ledger.database.writing() as connection:
        return _change(connection, item, values)


def settle(
    ledger: Ledger,
    item: WorkItem,
    to: WorkState,
    detail: str = "",
    *,
    reason: CancelReason | None = None,
    stored: Stored | None = None,
) -> bool:
    """Move an item on; False, and nothing is changed, where the lease was lost. It is due at once while it is open."""
    if to not in WORK_MOVES[item.state]:
        raise ValueError(f"no item is {to} after {item.state}")
    now = ledger.now()
    values: dict[str, Any] = FREE | {"state": to, "attempts": 0, "not_before": now, "updated_at": now}
    values["detail"] = detail or item.detail
    if to is WorkState.CLAIMED:
        values["claimed_at"] = now
    if reason is not None:
        values["reason"] = reason
    if stored is not None:
        values["outputs"] = json.dumps(asdict(stored))
    with ledger.database.writing() as connection:
        if not _change(connection, item, values):
            return False
        if to in _TOLD:
            said = f"{item.worklist}: item {item.workitem_uid} {to} {reason or item.reason or ''}"
            note(connection, _images(connection, item), now, "worklist", said.rstrip())
    return True


def _change(connection: sa.Connection, item: WorkItem, values: Mapping[str, Any]) -> bool:
    mine = sa.and_(held(work_items, item.claim), work_items.c.state == item.state)
    return connection.execute(sa.update(work_items).where(mine).values(values)).rowcount == 1


def _images(connection: sa.Connection, item: WorkItem) -> list[int]:
    """Those that came."""
    uids = [each.sop_instance_uid for each in item.images]
    return list(connection.scalars(sa.select(instances.c.id).where(instances.c.sop_instance_uid.in_(uids))))


def _read(outputs: str) -> Stored:
    told = json.loads(outputs)
    return Stored(destination=told["destination"], outputs=tuple(Output(**each) for each in told["outputs"]))


def forget(ledger: Ledger, history_days: float, duty: Held | None = None) -> int:
    """Delete the rows of items that ended so long ago; how many."""
    before = ledger.now() - timedelta(days=history_days)
    old = sa.and_(work_items.c.state.not_in(OPEN_ITEMS), work_items.c.updated_at < before)
    batch = sa.select(work_items.c.id).where(old).order_by(work_items.c.id).limit(_BATCH).with_for_update()
    forgotten = 0
    while True:
        with ledger.database.writing() as connection:
            duties.require(connection, duty, ledger.now())
            if not (row_ids := list(connection.scalars(batch))):
                return forgotten
            connection.execute(sa.delete(work_item_images).where(work_item_images.c.work_item_id.in_(row_ids)))
            connection.execute(sa.delete(work_items).where(work_items.c.id.in_(row_ids)))
        forgotten += len(row_ids)


def erase(connection: sa.Connection, sop_instance_uid: str) -> None:
    """Take an image, and what was made of it, out of the items that have ended; an open one must still be ended."""
    naming = sa.select(work_item_images.c.work_item_id).where(work_item_images.c.sop_instance_uid == sop_instance_uid)
    ended = sa.and_(work_items.c.id.in_(naming), work_items.c.state.not_in(OPEN_ITEMS))
    row_ids = list(connection.scalars(sa.select(work_items.c.id).where(ended)))
    connection.execute(sa.update(work_items).where(work_items.c.id.in_(row_ids)).values(outputs=None))
    mine = work_item_images.c.work_item_id.in_(row_ids)
    connection.execute(sa.delete(work_item_images).where(mine, work_item_images.c.sop_instance_uid == sop_instance_uid))


def counts(ledger: Ledger) -> dict[str, dict[WorkState, int]]:
    """Items in each state, by worklist; of ended ones all that are remembered."""
    columns = (work_items.c.worklist, work_items.c.state)
    grouped = sa.select(*columns, sa.func.count()).group_by(*columns).order_by(work_items.c.worklist)
    found: dict[str, dict[WorkState, int]] = {}
    with ledger.database.reading() as connection:
        for worklist, state, number in connection.execute(grouped):
            found.setdefault(worklist, dict.fromkeys(WorkState, 0))[WorkState(state)] = number
    return found


def about(ledger: Ledger, key: str, sop_instance_uids: Collection[str] = ()) -> list[WorkItemRow]:
    """Items that have a UID, their own or that of their transaction, or name its study or image, or one of these."""
    uid = key.strip().partition("=")[2] or key.strip()
    named = sa.or_(
        work_item_images.c.study_instance_uid == uid, work_item_images.c.sop_instance_uid.in_({uid, *sop_instance_uids})
    )
    naming = sa.select(work_item_images.c.work_item_id).where(named)
    mine = (work_items.c.workitem_uid == uid, work_items.c.transaction_uid == uid, work_items.c.id.in_(naming))
    found = sa.select(work_items).where(sa.or_(*mine)).order_by(work_items.c.id)
    with ledger.database.reading() as connection:
        rows = connection.execute(found).mappings().all()
    return [WorkItemRow(**pick(WorkItemRow, dict(row) | {"state": WorkState(row["state"])})) for row in rows]
