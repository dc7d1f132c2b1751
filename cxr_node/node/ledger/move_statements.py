"""Statements of the moves that every image and every result goes through, each built once (`prepared`).

Knows no transaction: `ledger` and `studies` say when a move is made, and what goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.prepared import given, prepared, value
from cxr_node.node.ledger.states import Claim, InstanceState, StudyState, held, is_on_hold
from cxr_node.node.ledger.tables import IS_OPEN, deliveries, instance_artifacts, instances, studies

DELIVERY_DUE = sa.and_(deliveries.c.destination == value("destination"), IS_OPEN, ~is_on_hold(value("destination")))
"""For `states.claim`: what a destination is to get next."""


@cache
def moving(table: sa.Table, before: tuple[str, ...], names: tuple[str, ...]) -> sa.Update:
    """Change these columns of a row that is `held`, and in one of the states `before`: for the values of `moved`."""
    lease = Claim(row_id=value("row_id"), owner=value("owner"), fence=value("fence"), attempts=0)
    mine = sa.and_(held(table, lease), table.c.state.in_(before))
    return sa.update(table).where(mine).values({name: value(f"new_{name}") for name in names})


def moved(lease: Claim, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give `moving` its values."""
    new = {f"new_{name}": each for name, each in values.items()}
    return given(row_id=lease.row_id, owner=lease.owner, fence=lease.fence, **new)


@cache
def settling(before: tuple[str, ...], names: tuple[str, ...]) -> sa.UpdateBase:
    """As `moving`, of a delivery; tells whose result it is."""
    return moving(deliveries, before, names).returning(deliveries.c.artifact_id)


@prepared
def ends(instance_id: int) -> sa.Select[Any]:
    """How the deliveries of an instance's present results stand."""
    current = of_instance(instance_id, instance_artifacts.c.outdated_at.is_(None))
    return sa.select(deliveries.c.state, deliveries.c.reason, deliveries.c.last_error).where(current).distinct()


@cache
def concluding(names: tuple[str, ...]) -> sa.UpdateBase:
    """Change these columns of an instance that is REPORTED, and whose study does not wait."""
    awaited = sa.select(sa.literal(1)).where(
        studies.c.study_instance_uid == instances.c.study_instance_uid, studies.c.state == StudyState.WAITING
    )
    reported = sa.and_(
        instances.c.id == value("instance_id"),
        instances.c.state == InstanceState.REPORTED,
        ~awaited.correlate(instances).exists(),
    )
    values = {name: value(name) for name in names}
    if "delivered_at" in values:  # the first time counts
        at = instances.c.delivered_at
        values["delivered_at"] = sa.func.coalesce(at, value("delivered_at", at))
    return (
        sa.update(instances).where(reported).values(values).returning(instances.c.received_at, instances.c.delivered_at)
    )


def of_instance(instance_id: int, *which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Deliveries of an instance's results."""
    linked = sa.select(instance_artifacts.c.artifact_id).where(instance_artifacts.c.instance_id == instance_id, *which)
    return deliveries.c.artifact_id.in_(linked)
