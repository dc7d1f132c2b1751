"""Alerts that were begun, and whether people were told: one row until the end of an alert is announced.

Knows no rule and no channel: the alert loop decides when one begins, and sends the announcements. Announced is what a
channel took; what it did not take is announced later, also by the next process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cxr_node.node.ledger.states import pick
from cxr_node.node.ledger.tables import alerts

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is wrong, or was until a moment ago."""

    key: str
    """Of the rule and its subject; the same again is the same alert."""
    rule: str
    subject: str
    """A destination, a sender or a process; never a patient."""
    began_at: datetime
    announced_at: datetime | None
    """None: its begin was not sent yet."""
    ended_at: datetime | None
    """None: it lasts. Else its end is still to be announced."""


def open_alerts(ledger: Ledger) -> tuple[Alert, ...]:
    """All that last, and all whose end was not announced yet; the oldest first."""
    with ledger.database.reading() as connection:
        rows = connection.execute(sa.select(alerts).order_by(alerts.c.began_at, alerts.c.key)).mappings().all()
    return tuple(Alert(**pick(Alert, row)) for row in rows)


def begin_alert(ledger: Ledger, key: str, rule: str, subject: str, now: datetime) -> bool:
    """Remember that it began; False where it lasts already.

    One that begins again before its end was announced goes on: nobody was told that it had ended.
    """
    row = {"key": key, "rule": rule, "subject": subject, "began_at": now}
    named = alerts.c.key == key
    with ledger.database.writing() as connection:
        again = sa.update(alerts).where(named, alerts.c.ended_at.is_not(None)).values(ended_at=None)
        if connection.execute(again).rowcount:
            return True
        if connection.scalar(sa.select(alerts.c.key).where(named)) is not None:
            return False
        connection.execute(sa.insert(alerts), row)
    return True


def mark_announced(ledger: Ledger, key: str, now: datetime) -> None:
    """Remember that people were told of its begin."""
    with ledger.database.writing() as connection:
        untold = sa.and_(alerts.c.key == key, alerts.c.announced_at.is_(None))
        connection.execute(sa.update(alerts).where(untold).values(announced_at=now))


def end_alert(ledger: Ledger, key: str, now: datetime) -> None:
    """Remember that it is over; the row stays until its end was announced."""
    with ledger.database.writing() as connection:
        lasting = sa.and_(alerts.c.key == key, alerts.c.ended_at.is_(None))
        connection.execute(sa.update(alerts).where(lasting).values(ended_at=now))


def forget_alert(ledger: Ledger, key: str) -> None:
    """Take away one that has ended: people know, or were never told that it began. One that lasts stays."""
    with ledger.database.writing() as connection:
        over = sa.and_(alerts.c.key == key, alerts.c.ended_at.is_not(None))
        connection.execute(sa.delete(alerts).where(over))
