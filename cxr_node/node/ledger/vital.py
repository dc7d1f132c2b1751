"""One row for each destination: how it fares. Below `ledger`, which writes a success in the delivery's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.tables import destination_health as table


def write(connection: sa.Connection, destination: str, again: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Change the row, or begin it; the caller holds the write lock, and one process writes of a destination."""
    known = sa.update(table).where(table.c.destination == destination).values(**again)
    if connection.execute(known).rowcount == 0:
        connection.execute(sa.insert(table), {"destination": destination, **first})


def succeeded(connection: sa.Connection, destination: str, now: datetime) -> None:
    """Say that it has just accepted a result, so it is up."""
    up = {"down_since": None, "next_try_at": None, "last_error": None, "last_success_at": now}
    write(connection, destination, up, up)


def forget(connection: sa.Connection, destination: str) -> None:
    """Take the row away."""
    connection.execute(sa.delete(table).where(table.c.destination == destination))
