"""How an object enters the ledger: from a sender, or from the spool after the ledger was lost.

Knows which columns an instance is received with; every later move is in `ledger`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import InstanceRef, Origin, Priority
from cxr_node.errors import CxrNodeError
from cxr_node.node.ledger import states
from cxr_node.node.ledger.database import ConflictError, Database
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.ledger.tables import Instant, events, instances

_IDENTITY = (instances.c.sop_instance_uid, instances.c.content_sha256)
_NOTE = sa.insert(events)
_MAX_TITLE_CHARS = 16  # what the column holds; PostgreSQL refuses more


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object whose bytes are safe in the spool."""

    ref: InstanceRef
    origin: Origin
    """Without AE title where it was found in the spool: its sender is unknown."""
    content_sha256: str
    size_bytes: int
    priority: Priority = Priority.MEDIUM
    """What the sender asked for; in the spool it is not written, so what is found there is MEDIUM."""
    admitted_at: datetime | None = None
    """When an operator accepted its patient and study, where a note in the spool says so."""


IsKept = Callable[[str], bool]
"""Whether the spool has the bytes of a digest."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An arrival whose thread waits."""

    arrival: Arrival
    is_kept: IsKept
    is_over: bool = False
    number: int | None = None
    fault: Exception | None = None


class GroupCommit:
    """Group commit: arrivals of several threads while another one waits for the disk.

    SQLite has one writer at a time, and a writer that finds it busy polls. Here the threads queue, and the
    first of them writes for all.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._waiting: deque[_Waiting] = deque()
        self._turn = threading.Lock()

    def add(self, arrival: Arrival, is_kept: IsKept) -> int | None:
        """As `arrive`, in a transaction that is durable when this returns."""
        mine = _Waiting(arrival, is_kept)
        self._waiting.append(mine)
        with self._turn:
            if not mine.is_over:  # not written meanwhile
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.fault is not None:
            raise mine.fault
        return mine.number

    def _write(self, together: Sequence[_Waiting]) -> None:
        try:
            with self._database.writing() as connection:
                found = arrive(connection, [each.arrival for each in together], self._now())
                for each, number in zip(together, found, strict=True):
                    _require_kept(each, is_new=number is not None)
        except Exception as error:
            is_of_all = isinstance(error, CxrNodeError) and not isinstance(error, ConflictError)
            if is_of_all or len(together) == 1:
                for each in together:
                    each.fault, each.is_over = error, True
            else:  # a fault of one arrival, or a conflict with another machine's, must not fail the others
                for each in together:
                    self._write([each])
        else:
            for each, number in zip(together, found, strict=True):
                each.number, each.is_over = number, True


def _require_kept(waiting: _Waiting, *, is_new: bool) -> None:
    """Let nothing be acknowledged that was known, so not written again, and that retention took meanwhile.

    Retention deletes the bytes in a transaction that has the row, as this one has it now: either it is over and they
    are gone, or it comes later and finds what this one left.
    """
    if not is_new and not waiting.is_kept(waiting.arrival.content_sha256):
        raise ConflictError("retention deleted the object in the moment in which it came again")


@cache
def _insert(engine: str) -> Any:
    insert = states.insert(engine, instances)
    return insert.on_conflict_do_nothing(index_elements=_IDENTITY).returning(instances.c.id)


def arrive(connection: sa.Connection, arrivals: Sequence[Arrival], now: datetime) -> list[int | None]:
    """-> RECEIVED, each in its turn, with its ledger number; None where exactly this object is known already.

    What was found in the spool is no repetition, unless retention had taken it: another machine was faster.
    """
    insert = _insert(connection.dialect.name)
    found, told = [], []
    for arrival in arrivals:
        row_id = connection.execute(insert, _row(arrival, now)).scalar()
        if row_id is None:
            _repeat(connection, arrival, now)
        else:
            told.append({"instance_id": row_id, "at": now, "what": "received", "detail": _told(arrival.origin)})
        found.append(row_id)
    if told:
        connection.execute(_NOTE, told)
    return found


def _row(arrival: Arrival, now: datetime) -> dict[str, Any]:
    row = {name: getattr(noun, name) for noun in (arrival.ref, arrival.origin) for name in noun.__slots__}
    row |= {"content_sha256": arrival.content_sha256, "size_bytes": arrival.size_bytes, "priority": arrival.priority}
    row["calling_ae_title"] = row["calling_ae_title"][:_MAX_TITLE_CHARS]  # escaped, 16 bytes may be 64 characters
    row["admitted_at"] = arrival.admitted_at
    return row | {"state": InstanceState.RECEIVED, "not_before": now, "updated_at": now}


def _repeat(connection: sa.Connection, arrival: Arrival, now: datetime) -> None:
    """Where retention had taken its bytes they are back now: count their days from today."""
    again: dict[str, Any] = {"repeats": instances.c.repeats + 1, "repeated_at": now, "purged_at": None}
    purged, updated_at = instances.c.purged_at.is_not(None), instances.c.updated_at
    again["updated_at"] = sa.case((purged, sa.literal(now, Instant)), else_=updated_at)
    is_anybodys = instances.c.calling_ae_title == ""  # it was found in the spool, and its sender is known now
    for name in ("calling_ae_title", "peer_host"):
        again[name] = sa.case((is_anybodys, _row(arrival, now)[name]), else_=instances.c[name])
    more_urgent = instances.c.priority > arrival.priority  # sent once more, for it is wanted at once
    rejected = instances.c.state == InstanceState.REJECTED  # the rules may be others today: a worker compares them
    again["state"] = sa.case((rejected, InstanceState.RECEIVED), else_=instances.c.state)
    again["attempts"] = sa.case((rejected, 0), else_=instances.c.attempts)
    again["priority"] = sa.case((more_urgent, int(arrival.priority)), else_=instances.c.priority)
    which = _same(arrival) if arrival.origin.calling_ae_title else (*_same(arrival), purged)
    connection.execute(sa.update(instances).where(*which).values(again))


def _told(sender: Origin) -> str:
    return f"from {sender.calling_ae_title} at {sender.peer_host}" if sender.calling_ae_title else "found in the spool"


def first_receipt(database: Database, arrival: Arrival) -> datetime | None:
    """When an object was first received; None if unknown."""
    with database.reading() as connection:
        return connection.scalar(sa.select(instances.c.received_at).where(*_same(arrival)))


def number_of(database: Database, arrival: Arrival) -> int | None:
    """Ledger number of an object that was known before; by which log lines and `trace` name it."""
    with database.reading() as connection:
        return connection.scalar(sa.select(instances.c.id).where(*_same(arrival)))


def _same(arrival: Arrival) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        instances.c.sop_instance_uid == arrival.ref.sop_instance_uid,
        instances.c.content_sha256 == arrival.content_sha256,
    )
