"""From when on it counts how late a result is (`delivery.not_after_min`).

From the receipt of its image; of several, of the last. Where a person wanted it since, from then on: what is judged
again, retried or sent again is wanted, however old the image. What an archive lost is never too late (`commitments`).
Neither a hold nor a destination that is down stops this clock: what is read by then needs no result any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.prepared import prepared
from cxr_node.node.ledger.tables import Instant, events, instances

WISHED = ("rejudged", "retried")
"""What the memory of an image calls the wishes of people that it be judged again."""


def since(connection: sa.Connection, instance_ids: Collection[int], *, came_again: bool = False) -> datetime:
    """From when on it counts for a new result of these images; `came_again` : for its last receipt it is judged."""
    found = connection.execute(*(_again if came_again else _first)(list(instance_ids))).one()
    received_at: datetime = found[0]
    wished_at: datetime | None = found[1]
    return received_at if wished_at is None else max(received_at, wished_at)


@prepared
def _first(instance_ids: Sequence[int]) -> sa.Select[Any]:
    return _last(instances.c.received_at, instance_ids)


@prepared
def _again(instance_ids: Sequence[int]) -> sa.Select[Any]:
    return _last(sa.func.coalesce(instances.c.repeated_at, instances.c.received_at), instance_ids)


def _last(received: sa.ColumnElement[datetime], instance_ids: Sequence[int]) -> sa.Select[Any]:
    last = sa.select(sa.func.max(received, type_=Instant())).where(instances.c.id.in_(instance_ids))
    wished = sa.select(sa.func.max(events.c.at, type_=Instant())).where(
        events.c.instance_id.in_(instance_ids), events.c.what.in_(WISHED)
    )
    return sa.select(last.scalar_subquery(), wished.scalar_subquery())
