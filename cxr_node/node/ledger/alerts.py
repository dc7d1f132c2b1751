"""Alerts and their announcements: a row stays until the end of the alert is announced.

Knows no rule and no channel: the alert loop decides when an alert begins, and sends the announcements. One that could
not be sent is sent later, also by the next process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cxr_node.node.ledger.states import insert_once, pick
from cxr_node.node.ledger.tables import alerts

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert, lasting or just over."""

    key: str
    """Of the rule and its subject."""
    rule: str
    subject: str
    """A destination, a sender or a process; never a patient."""
    began_at: datetime
    announced_at: datetime | None
    """None: its begin was not announced yet."""
    ended_at: datetime | None
    """None: it lasts."""


def open_alerts(ledger: Ledger) -> tuple[Alert, ...]:
    """Alerts that last, and those whose end was not announced yet; oldest first."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(alerts).order_by(alerts.c.began_at, alerts.c.key)).mappings().all()
    return tuple(Alert(**pick(Alert, row)) for row in rows)


def begin_alert(ledger: Ledger, key: str, rule: str, subject: str, now: datetime) -> bool:
    """Record the begin; False where the alert lasts already.

    One that begins again before its end was announced continues: its end was never announced.
    """
    row = {"key": key, "rule": rule, "subject": subject, "began_at": now}
    named = alerts.c.key == key
    with ledger.database.writing() as connection:
        again = sa.update(alerts).where(named, alerts.c.ended_at.is_not(None)).values(ended_at=None)
        if connection.execute(again).rowcount:
            return True
        return insert_once(connection, alerts, row)


def mark_announced(ledger: Ledger, key: str, now: datetime) -> None:
    """Record that its begin was announced."""
    with ledger.database.writing() as connection:
        untold = sa.and_(alerts.c.key == key, alerts.c.announced_at.is_(None))
        connection.execute(sa.update(alerts).where(untold).values(announced_at=now))


def end_alert(ledger: Ledger, key: str, now: datetime) -> None:
    """Record the end; the row stays until `forget_alert`."""
    with ledger.database.writing() as connection:
        lasting = sa.and_(alerts.c.key == key, alerts.c.ended_at.is_(None))
        connection.execute(sa.update(alerts).where(lasting).values(ended_at=now))


def forget_alert(ledger: Ledger, key: str) -> None:
    """Delete an alert whose end was announced, or whose begin never was; one that lasts stays."""
    with ledger.database.writing() as connection:
        over = sa.and_(alerts.c.key == key, alerts.c.ended_at.is_not(None))
        connection.execute(sa.delete(alerts).where(over))
