"""Leases on rows: one claims, others wait until it settles or its time is over.

Knows which columns a lease has (`schema._lease`), but no state and no meaning of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.states import Claim
from cxr_node.node.ledger.tables import events

FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
"""A row nobody works on."""


def claim(
    connection: sa.Connection,
    table: sa.Table,
    waiting: sa.ColumnElement[bool],
    owner: str,
    lease_s: float,
    now: datetime,
) -> tuple[sa.RowMapping, Claim] | None:
    """Lease the first of the waiting rows that is due and free: the most urgent, of those the oldest.

    Of instances, what took a worker with it or failed before comes after its equals. The attempt is counted now: a
    job that kills its worker is counted too. SQLite holds the write lock here; PostgreSQL skips rows that another
    claim has locked.
    """
    free = sa.or_(table.c.lease_until.is_(None), _passed(table.c.lease_until, now, 2 * lease_s))
    due = _passed(table.c.not_before, now, table.info["max_delay_s"])
    found = sa.select(table).where(waiting, due, free).order_by(*(table.c[name] for name in table.info["order"]))
    row = connection.execute(found.limit(1).with_for_update(skip_locked=True)).mappings().first()
    if row is None:
        return None
    lease = Claim(row_id=row["id"], owner=owner, fence=row["fence"] + 1, attempts=row["attempts"] + 1)
    taken = {"lease_owner": owner, "lease_until": now + timedelta(seconds=lease_s)}
    taken |= {"fence": lease.fence, "attempts": lease.attempts}
    connection.execute(sa.update(table).where(table.c.id == lease.row_id).values(taken))
    return row, lease


def _passed(at: sa.Column[Any], now: datetime, longest_s: float) -> sa.ColumnElement[bool]:
    """True for a time that has come, and for one further away than any is ever set: the clock was put back since."""
    return sa.or_(at <= now, at > now + timedelta(seconds=longest_s))


def held(table: sa.Table, lease: Claim) -> sa.ColumnElement[bool]:
    """True for the leased row, while nobody has claimed it since and nobody has settled it."""
    return sa.and_(table.c.id == lease.row_id, table.c.lease_owner == lease.owner, table.c.fence == lease.fence)


def extend(connection: sa.Connection, table: sa.Table, lease: Claim, until: datetime) -> bool:
    """Keep a lease for longer; False where it is lost."""
    return connection.execute(sa.update(table).where(held(table, lease)).values(lease_until=until)).rowcount == 1


def due_at(table: sa.Table) -> sa.ColumnElement[Any]:
    """When a row may be claimed: after its delay, and after the lease that is on it."""
    lease_until = sa.func.coalesce(table.c.lease_until, table.c.not_before)
    return sa.case((lease_until > table.c.not_before, lease_until), else_=table.c.not_before)


def note(connection: sa.Connection, instance_ids: Sequence[int], now: datetime, what: str, detail: str) -> None:
    """Remember a transition."""
    if instance_ids:
        rows = [{"instance_id": row_id, "at": now, "what": what, "detail": detail} for row_id in instance_ids]
        connection.execute(sa.insert(events), rows)


def pick(noun: type[Any], row: Mapping[Any, Any]) -> dict[str, Any]:
    """Take from a row what a noun's fields are named after."""
    return {field.name: row[field.name] for field in fields(noun)}
