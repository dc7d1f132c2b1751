"""Where an image stands in the words of an operator, as conditions on instances. Knows no move.

Each is quick at a million rows, for few images wait, are on their way or ended so, and all of them are found by an
index: of the instances' states, or of the deliveries that are open or ended without success.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from cxr_node.domain import Verdict
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.ledger.tables import IS_ENDED, IS_OPEN, deliveries, holds, instance_artifacts, instances


class Stage(StrEnum):
    """What an operator asks for."""

    WAITING = "waiting"
    """To be judged, and in nobody's hands."""
    WORKING = "working"
    TO_DELIVER = "to-deliver"
    HELD = "held"
    """Something of it waits for a destination that is held."""
    DEAD = "dead"
    """Or a destination refused something of it."""
    REJECTED = "rejected"
    UNCERTAIN = "uncertain"
    SET_ASIDE = "set-aside"
    """Or some of its deliveries are."""


ENDS = {
    Stage.DEAD: InstanceState.DEAD,
    Stage.SET_ASIDE: InstanceState.SET_ASIDE,
    Stage.REJECTED: InstanceState.REJECTED,
}
MANY = (Stage.REJECTED, Stage.UNCERTAIN)
"""Of these a ledger may have very many, and those of one sender have an index of their own."""


def condition(stage: Stage, now: datetime) -> sa.ColumnElement[bool]:
    """Instances at a stage."""
    is_received = instances.c.state == InstanceState.RECEIVED
    is_in_hand = sa.func.coalesce(instances.c.lease_until, 0) > sa.literal(now, instances.c.lease_until.type)
    match stage:
        case Stage.WAITING:
            return sa.and_(is_received, ~is_in_hand)
        case Stage.WORKING:
            return sa.and_(is_received, is_in_hand)
        case Stage.TO_DELIVER:
            return instances.c.state == InstanceState.REPORTED
        case Stage.HELD:
            waiting = sa.select(deliveries.c.artifact_id).where(
                deliveries.c.destination.in_(sa.select(holds.c.destination))
            )
            return instances.c.id.in_(_linked(waiting.where(IS_OPEN)))
        case Stage.DEAD | Stage.SET_ASIDE:
            return has_ended(ENDS[stage])
        case Stage.REJECTED:
            return sa.and_(instances.c.state == ENDS[stage], instances.c.reason.is_not(None))
        case Stage.UNCERTAIN:
            return sa.and_(instances.c.verdict == Verdict.INDETERMINATE, instances.c.abstain_reason.is_not(None))


def unindexed(column: sa.Column[str]) -> sa.ColumnElement[str]:
    """A column that SQLite must not look up: another index leads to fewer rows."""
    return sa.func.coalesce(column, "")


def has_ended(state: InstanceState) -> sa.ColumnElement[bool]:
    """Instances that are DEAD, or set aside; and those of which a destination did not get a present result for that."""
    ended = sa.select(deliveries.c.artifact_id).where(IS_ENDED, deliveries.c.state == state.value)
    linked = _linked(ended, instance_artifacts.c.outdated_at.is_(None))
    concerned = (InstanceState.REPORTED, InstanceState.REJECTED, InstanceState.DEAD)  # of a rejected one its note
    some = sa.and_(instances.c.id.in_(linked), unindexed(instances.c.state).in_(concerned))
    return sa.or_(instances.c.state == state, some)


def _linked(artifact_ids: sa.Select[tuple[int]], *which: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
    return sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(artifact_ids), *which)
