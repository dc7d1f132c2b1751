"""When a study is ripe: a judged image makes it wait until no image has come for a while, and no longer than a bound.

The row of the study is written with that of its image, so ripeness outlives kills and is the same for all workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.domain import Priority
from cxr_node.node.ledger.prepared import prepared
from cxr_node.node.ledger.states import DeliveryState, Job, OrderState, StudyState, insert_once
from cxr_node.node.ledger.tables import (
    instance_artifacts,
    instances,
    judgements,
    prior_orders,
    report_artifacts,
    studies,
)
from cxr_node.result_kinds import ReportPer, ResultKind, Wish

URGENT_QUIET_S = 2.0
"""Where its sender says that an image is urgent (C-STORE Priority HIGH)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ripening:
    """When a study is ripe, in seconds: after its last image, and at the latest after the first that no report has."""

    quiet_s: float
    max_wait_s: float
    with_priors: bool = False
    """Earlier radiographs of its patient are to be fetched meanwhile."""

    def ripe_at(self, first: datetime, last: datetime, priority: Priority) -> datetime:
        """When all of it is there, as far as anybody can tell."""
        quiet_s = min(self.quiet_s, URGENT_QUIET_S) if priority is Priority.HIGH else self.quiet_s
        return min(last + timedelta(seconds=quiet_s), first + timedelta(seconds=self.max_wait_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the report of a study will be made of, of one image, and when that study is ripe."""

    text: str
    is_listed: bool
    ripening: Ripening


def expect(connection: sa.Connection, job: Job, judged: Judged | None, now: datetime) -> None:
    """Remember what was said of an image, and let its study wait for its report; None: no report is to have it."""
    had = 0
    if not job.is_first:
        had = connection.execute(sa.delete(judgements).where(judgements.c.instance_id == job.instance_id)).rowcount
    if judged is not None:
        row = {"instance_id": job.instance_id, "listed": int(judged.is_listed), "content": judged.text}
        connection.execute(_INSERT, row)
    if judged is not None or had:
        ripening = Ripening(quiet_s=0.0, max_wait_s=0.0) if judged is None else judged.ripening
        _wait(connection, job, ripening, now)


def _wait(connection: sa.Connection, job: Job, ripening: Ripening, now: datetime) -> None:
    uid, received_at = job.ref.study_instance_uid, job.origin.received_at
    last = connection.scalar(*_last_received(uid)) or received_at
    values = {"state": StudyState.WAITING, "attempts": 0, "updated_at": now}
    fresh = {"version": 1, "first_at": received_at, "priority": job.priority}
    fresh |= {"not_before": ripening.ripe_at(received_at, last, job.priority)}
    first, priority = received_at, job.priority
    if not insert_once(connection, studies, values | fresh | {"study_instance_uid": uid, "fence": 0}):
        mine = studies.c.study_instance_uid == uid
        row = connection.execute(sa.select(studies).where(mine).with_for_update()).mappings().one()
        waits = row["state"] == StudyState.WAITING
        first = min(row["first_at"], received_at) if waits else received_at
        priority = Priority(min(row["priority"], job.priority) if waits else job.priority)
        values |= {"version": row["version"] + 1, "first_at": first, "priority": priority}
        values |= {"not_before": ripening.ripe_at(first, last, priority)}
        connection.execute(sa.update(studies).where(mine).values(values))
    if ripening.with_priors:
        until = first + timedelta(seconds=ripening.max_wait_s)
        order = {"study_instance_uid": uid, "state": OrderState.DUE, "until": until, "priority": priority}
        insert_once(connection, prior_orders, order | {"not_before": now, "updated_at": now, "attempts": 0, "fence": 0})


_INSERT = sa.insert(judgements)


@prepared
def _last_received(study_instance_uid: str) -> sa.Select[Any]:
    at = instances.c.received_at
    return sa.select(sa.func.max(at, type_=at.type)).where(instances.c.study_instance_uid == study_instance_uid)


def wait_again(connection: sa.Connection, study_instance_uid: str, now: datetime) -> None:
    """Let a study be reported again, at once unless it waits anyway; a report that is being made is not its last."""
    waits = studies.c.state == StudyState.WAITING
    values = {"state": StudyState.WAITING, "version": studies.c.version + 1, "attempts": 0, "updated_at": now}
    for at in (studies.c.first_at, studies.c.not_before):
        values[at.name] = sa.case((waits, at), else_=sa.literal(now, at.type))
    mine = studies.c.study_instance_uid == study_instance_uid
    connection.execute(sa.update(studies).where(mine).values(values))


def leave(connection: sa.Connection, instance_id: int, study_instance_uid: str, now: datetime) -> None:
    """Take an image out of its study, which is reported without it; judged again, it is in it again."""
    connection.execute(sa.delete(judgements).where(judgements.c.instance_id == instance_id))
    wait_again(connection, study_instance_uid, now)


def is_in_study(connection: sa.Connection, instance_id: int) -> bool:
    """Whether the report of its study has, or will have, what was said of an image."""
    known = sa.select(judgements.c.instance_id).where(judgements.c.instance_id == instance_id)
    return connection.scalar(known) is not None


def state_of(connection: sa.Connection, study_instance_uid: str) -> StudyState | None:
    """Where a study is; None where no report of it was ever wanted."""
    state = connection.scalar(sa.select(studies.c.state).where(studies.c.study_instance_uid == study_instance_uid))
    return None if state is None else StudyState(state)


def is_reported(instance_id: int) -> sa.ColumnElement[bool]:
    """An image whose study has a report that is about it."""
    linked = sa.select(instance_artifacts.c.artifact_id).where(
        instance_artifacts.c.instance_id == instance_id,
        instance_artifacts.c.outdated_at.is_(None),
        instance_artifacts.c.artifact_id.in_(sa.select(report_artifacts.c.artifact_id)),
    )
    return linked.exists()


def wanting(wishes: Mapping[str, Wish], kind: ResultKind, per: ReportPer) -> list[str]:
    """Name the destinations that want a kind of result, of each image or of each study."""
    return [name for name, wish in wishes.items() if wish.per is per and kind in wish.kinds]


def begins_as(wish: Wish, study_instance_uid: str) -> DeliveryState:
    """State in which a result of a study begins its way to a destination: due, or in shadow."""
    return DeliveryState.SHADOW if wish.is_shadow(study_instance_uid) else DeliveryState.READY
