"""Why something waits: one sentence for each image and each delivery that does. Reads only.

`deliver` and `work` act by the ledger and their breakers; this says in words what they would do next, and when.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from cxr_node.node import health, presence, versions
from cxr_node.node.health import Health
from cxr_node.node.history import DeliveryRow, InstanceRow, Story
from cxr_node.node.jobs import InstanceState
from cxr_node.node.ledger import OPEN, Ledger
from cxr_node.node.presence import RoleState
from cxr_node.node.schema import IS_OPEN, deliveries, instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What decides whether anything moves."""

    roles: Mapping[str, RoleState]
    destinations: Collection[str]
    """Names in the configuration."""
    health: Mapping[str, Health]
    now: datetime


def surroundings(ledger: Ledger, spool_path: Path, destinations: Collection[str]) -> Surroundings:
    """Look round once, for many sentences."""
    roles, seen = presence.look(spool_path), health.look(ledger)
    return Surroundings(roles=roles, destinations=destinations, health=seen, now=ledger.now())


def explained(ledger: Ledger, story: Story, around: Surroundings) -> Story:
    """Say of one instance what it waits for, and of each of its deliveries."""
    with ledger.database.reading() as connection:
        sent = tuple(replace(row, why=_of_delivery(connection, row, around)) for row in story.deliveries)
        row = replace(story.instance, why=_of_instance(connection, story.instance, around))
    return replace(story, instance=row, deliveries=sent)


def _of_instance(connection: sa.Connection, row: InstanceRow, around: Surroundings) -> str | None:
    if row.state is not InstanceState.RECEIVED:
        return None
    lease = connection.execute(sa.select(instances.c.lease_until).where(instances.c.id == row.id)).scalar_one()
    stopped = _stopped("work", around)
    if stopped is None and _is_held(lease, around.now):
        return "it is being judged now"
    order = [instances.c[name] for name in instances.info["order"]]
    mine = sa.select(*order).where(instances.c.id == row.id)
    sooner = sa.or_(sa.tuple_(*order) < mine.scalar_subquery(), instances.c.lease_until > around.now)
    first = sa.and_(instances.c.state == InstanceState.RECEIVED, instances.c.id != row.id, sooner)
    before = int(connection.scalar(sa.select(sa.func.count()).select_from(instances).where(first)) or 0)
    earlier = versions.awaited(connection, row.id)
    turn = _queue(before) if earlier is None else f"image #{earlier}, an earlier version of it, is to be judged first"
    if stopped is not None:
        return f"{stopped}; {turn}"
    if earlier is not None:
        return turn
    if row.not_before > around.now:
        return f"trying again at {clock(row.not_before, around.now)}"
    return turn


def _of_delivery(connection: sa.Connection, row: DeliveryRow, around: Surroundings) -> str | None:
    if row.state not in OPEN:
        return None
    if row.destination not in around.destinations:
        return f"{row.destination} is not configured; `cxr-node forget --destination {row.destination}` settles it"
    found = connection.execute(sa.select(deliveries).where(deliveries.c.id == row.id)).mappings().one()
    here = sa.and_(deliveries.c.destination == row.destination, IS_OPEN, deliveries.c.id != row.id)
    at_hand = sa.and_(here, deliveries.c.lease_until > around.now)
    others = [here, sa.tuple_(deliveries.c.priority, deliveries.c.id) < sa.tuple_(found["priority"], row.id)]
    before = int(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(*others)) or 0)
    tried = bool(connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(at_hand)))
    stopped, down = _stopped("deliver", around), _down_sentence(row.destination, around)
    if stopped is not None:
        return "; ".join(word for word in (stopped, down, _queue(before)) if word)
    if _is_held(found["lease_until"], around.now):
        return "; ".join(word for word in (down, "it is being sent now") if word)
    said = [down] if down else []
    if row.not_before > around.now:
        said.append(f"trying again at {clock(row.not_before, around.now)}")
    if tried:
        said.append("another image of this destination is being tried")
    return "; ".join([*said, _queue(before)])


def _stopped(role: str, around: Surroundings) -> str | None:
    state = around.roles[role]
    if state.running:
        return None
    return f"{role} does not run" + (f" since {clock(state.since, around.now)}" if state.since else "")


def _down_sentence(destination: str, around: Surroundings) -> str | None:
    seen = around.health.get(destination)
    if seen is None or seen.down_since is None:
        return None
    since = clock(seen.down_since, around.now)
    return f"{destination} is down since {since}{_next_try(seen, around.now)} ({seen.last_error})"


def _next_try(seen: Health, now: datetime) -> str:
    """When a destination that is down is tried next, as the end of a sentence."""
    if seen.next_try_at is None:
        return ""
    return f", next try at {clock(seen.next_try_at, now)}" if seen.next_try_at > now else ", being tried now"


def _queue(before: int) -> str:
    return f"before it: {before} waiting" if before else "it is the next"


def _is_held(until: datetime | None, now: datetime) -> bool:
    return until is not None and until > now


def clock(at: datetime, now: datetime) -> str:
    """UTC, to the second; without the day where that is today."""
    there = at.astimezone(UTC)
    return f"{there:%H:%M:%S} UTC" if there.date() == now.astimezone(UTC).date() else f"{there:%Y-%m-%d %H:%M:%S} UTC"
