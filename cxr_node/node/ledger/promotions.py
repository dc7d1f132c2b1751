"""Promotions: a person made the configured candidate live in place of the configured profile, or took that back.

The configuration says which two profiles may answer, here stands which of them does: a state, as a hold is. So it is
the same on all machines and after every restart; and as soon as the configuration names another pair, or the
candidate's folder holds another model, it says nothing any more.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cxr_node.node.ledger.candidate_tables import promotions
from cxr_node.node.ledger.states import pick

if TYPE_CHECKING:
    from cxr_node.node.ledger.ledger import Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """Two profiles of a configuration, by the names that it gives them."""

    profile: str
    candidate: str
    candidate_sha256: str
    """Which candidate: its weights, version and thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """The candidate is live."""

    id: int
    rivals: Rivals
    at: datetime
    by: str


def current(ledger: Ledger, rivals: Rivals) -> Promotion | None:
    """The promotion that holds for these two; None: the configuration's profile is live."""
    last = sa.select(promotions).order_by(promotions.c.id.desc()).limit(1)
    with ledger.database.reading() as connection:
        row = connection.execute(last).mappings().first()
    if row is None or not row["promoted"] or Rivals(**pick(Rivals, row)) != rivals:
        return None
    return Promotion(id=row["id"], rivals=rivals, at=row["at"], by=row["by"])


def last_id(ledger: Ledger) -> int:
    """Number of the last promotion or way back; 0: there was none. A worker that began under another one ends."""
    with ledger.database.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.max(promotions.c.id))) or 0)


def promote(ledger: Ledger, rivals: Rivals, *, by: str, back: bool = False) -> None:
    """Make the candidate live, or the configuration's profile again."""
    row = asdict(rivals) | {"promoted": int(not back), "at": ledger.now(), "by": by}
    with ledger.database.writing() as connection:
        connection.execute(sa.insert(promotions), row)
    live = rivals.profile if back else rivals.candidate
    log.warning("%s live=%s by=%s", "taken back" if back else "promoted", live, by)
