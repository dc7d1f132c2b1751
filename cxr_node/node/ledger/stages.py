"""Stages of an image as an operator names them, as conditions on instances. Knows no move.

Each uses an index: of the instances' states, or of the deliveries that are open or ended without success.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from cxr_node.domain import Verdict
from cxr_node.node.ledger.states import InstanceState, StudyState
from cxr_node.node.ledger.tables import (
    IS_ENDED,
    IS_OPEN,
    IS_SHADOW,
    deliveries,
    holds,
    instance_artifacts,
    instances,
    studies,
)


class Stage(StrEnum):
    """Where an image is."""

    WAITING = "waiting"
    """To be judged, and not in a worker's hands."""
    WORKING = "working"
    FOR_STUDY = "for-study"
    """Judged, and its study is not reported yet."""
    TO_DELIVER = "to-deliver"
    HELD = "held"
    """A result waits for a held destination."""
    SHADOW = "shadow"
    """A result is kept and not sent."""
    DEAD = "dead"
    """Itself, or one of its deliveries."""
    REJECTED = "rejected"
    UNCERTAIN = "uncertain"
    SET_ASIDE = "set-aside"
    """Itself, or one of its deliveries."""


ENDS = {
    Stage.DEAD: InstanceState.DEAD,
    Stage.SET_ASIDE: InstanceState.SET_ASIDE,
    Stage.REJECTED: InstanceState.REJECTED,
}
MANY = (Stage.REJECTED, Stage.UNCERTAIN)
"""A ledger may have very many of these; each has an index by sender."""


def condition(stage: Stage, now: datetime) -> sa.ColumnElement[bool]:
    """Instances at a stage."""
    is_received = instances.c.state == InstanceState.RECEIVED
    is_in_hand = sa.func.coalesce(instances.c.lease_until, 0) > sa.literal(now, instances.c.lease_until.type)
    match stage:
        case Stage.WAITING:
            return sa.and_(is_received, ~is_in_hand)
        case Stage.WORKING:
            return sa.and_(is_received, is_in_hand)
        case Stage.FOR_STUDY:
            return sa.and_(instances.c.state == InstanceState.REPORTED, _awaits_study())
        case Stage.TO_DELIVER:
            return sa.and_(instances.c.state == InstanceState.REPORTED, ~_awaits_study())
        case Stage.HELD:
            waiting = sa.select(deliveries.c.artifact_id).where(
                deliveries.c.destination.in_(sa.select(holds.c.destination))
            )
            return instances.c.id.in_(_linked(waiting.where(IS_OPEN)))
        case Stage.SHADOW:
            return instances.c.id.in_(
                _linked(
                    sa.select(deliveries.c.artifact_id).where(IS_SHADOW), instance_artifacts.c.outdated_at.is_(None)
                )
            )
        case Stage.DEAD | Stage.SET_ASIDE:
            return has_ended(ENDS[stage])
        case Stage.REJECTED:
            return sa.and_(instances.c.state == ENDS[stage], instances.c.reason.is_not(None))
        case Stage.UNCERTAIN:
            return sa.and_(instances.c.verdict == Verdict.INDETERMINATE, instances.c.abstain_reason.is_not(None))


def _awaits_study() -> sa.ColumnElement[bool]:
    waiting = sa.select(studies.c.study_instance_uid).where(studies.c.state == StudyState.WAITING)
    return instances.c.study_instance_uid.in_(waiting)


def unindexed(column: sa.Column[str]) -> sa.ColumnElement[str]:
    """A column whose index SQLite must not use: another one leads to fewer rows."""
    return sa.func.coalesce(column, "")


def has_ended(state: InstanceState) -> sa.ColumnElement[bool]:
    """Instances that are DEAD or set aside, and those with such a delivery of a present result."""
    ended = sa.select(deliveries.c.artifact_id).where(IS_ENDED, deliveries.c.state == state.value)
    linked = _linked(ended, instance_artifacts.c.outdated_at.is_(None))
    concerned = (InstanceState.REPORTED, InstanceState.SHADOW, InstanceState.REJECTED, InstanceState.DEAD)
    # of a rejected one its note
    some = sa.and_(instances.c.id.in_(linked), unindexed(instances.c.state).in_(concerned))
    return sa.or_(instances.c.state == state, some)


def _linked(artifact_ids: sa.Select[tuple[int]], *which: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
    return sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(artifact_ids), *which)
