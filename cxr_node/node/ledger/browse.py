"""Pages of instances, and bounded counts. Reads only; `listing` makes the conditions.

The cost does not grow with the ledger: a page begins after the last row of the page before it (keyset paging), and
nothing is counted beyond `COUNTED`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import sqlalchemy as sa

from cxr_node.domain import AbstainReason, Reason
from cxr_node.node.ledger import listing, stages
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.queries import InstanceRow, instance_row
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import DeadReason, OwnReason, SetAsideReason
from cxr_node.node.ledger.tables import deliveries, instances

PAGE = 50
COUNTED = 1000
_REASONS: dict[Stage | None, tuple[type[StrEnum], ...]] = {
    None: (Reason, AbstainReason, DeadReason, SetAsideReason, OwnReason),
    Stage.REJECTED: (Reason,),
    Stage.UNCERTAIN: (AbstainReason,),
    Stage.DEAD: (DeadReason,),
    Stage.SET_ASIDE: (SetAsideReason, OwnReason),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page begins: before or after the ledger number of an image, else at the first row."""

    before: int | None = None
    after: int | None = None
    oldest_first: bool = False
    size: int = PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the matching instances."""

    rows: tuple[InstanceRow, ...]
    has_newer: bool
    has_older: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A count; `is_more`: there are more than that."""

    number: int
    is_more: bool

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.is_more else ''}"


class Group(StrEnum):
    """What instances are counted by."""

    REASON = "reason"
    SENDER = "sender"
    DESTINATION = "destination"


def page(ledger: Ledger, wanted: Wanted, place: Place | None = None) -> Page:
    """One page, newest or oldest first."""
    place = place or Place()
    ascends = place.after is not None or (place.before is None and place.oldest_first)
    beyond = [instances.c.id > place.after] if place.after is not None else []
    beyond += [instances.c.id < place.before] if place.before is not None else []
    order = instances.c.id.asc() if ascends else instances.c.id.desc()
    some = sa.select(instances.c.id).where(listing.condition(wanted, ledger.now()), *beyond).order_by(order)
    query = sa.select(instances).where(instances.c.id.in_(some.limit(place.size + 1))).order_by(order)
    with ledger.database.reading() as connection:
        found = [instance_row(row) for row in connection.execute(query).mappings()]
    is_more, rows = len(found) > place.size, found[: place.size]
    return Page(
        rows=tuple(rows if ascends is place.oldest_first else rows[::-1]),
        has_newer=is_more if ascends else place.before is not None,
        has_older=place.after is not None if ascends else is_more,
    )


def count(ledger: Ledger, wanted: Wanted) -> Total:
    """Count matching instances, up to `COUNTED`."""
    some = sa.select(instances.c.id).where(listing.condition(wanted, ledger.now())).limit(COUNTED + 1)
    with ledger.database.reading() as connection:
        number = int(connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0)
    return Total(number=min(number, COUNTED), is_more=number > COUNTED)


def groups(ledger: Ledger, wanted: Wanted, by: Group) -> dict[str, Total]:
    """Count matching instances by reason, sender or destination, each up to `COUNTED`, in one view of the ledger.

    An image that one destination refused while it is on its way to others has no reason, and is in no group of them.
    """
    if by is Group.SENDER and wanted.stage is not None and wanted.stage not in stages.MANY:
        return _senders(ledger, wanted)
    with ledger.database.one_view():
        found = {name: count(ledger, _narrowed(wanted, by, name)) for name in _names(ledger, wanted, by)}
    return {name: total for name, total in found.items() if total.number}


def _senders(ledger: Ledger, wanted: Wanted) -> dict[str, Total]:
    """In one pass: at these stages there are few."""
    title = stages.unindexed(instances.c.calling_ae_title)
    counted = sa.select(title, sa.func.count()).where(listing.condition(wanted, ledger.now()))
    with ledger.database.reading() as connection:
        found = connection.execute(counted.group_by(title)).all()
    return {name: Total(number=min(number, COUNTED), is_more=number > COUNTED) for name, number in found}


def _narrowed(wanted: Wanted, by: Group, name: str) -> Wanted:
    match by:
        case Group.REASON:
            return replace(wanted, reason=name)
        case Group.SENDER:
            return replace(wanted, sender=name)
        case Group.DESTINATION:
            return replace(wanted, destination=name)


def _names(ledger: Ledger, wanted: Wanted, by: Group) -> Iterable[str]:
    """Names to count: the one that is wanted, else all that are possible."""
    given = {Group.REASON: wanted.reason, Group.SENDER: wanted.sender, Group.DESTINATION: wanted.destination}[by]
    if given is not None:
        return [given]
    if by is Group.REASON:
        return [each.value for kind in _REASONS.get(wanted.stage, ()) for each in kind]
    column = instances.c.calling_ae_title if by is Group.SENDER else deliveries.c.destination
    with ledger.database.reading() as connection:
        return list(listing.names(connection, column))
