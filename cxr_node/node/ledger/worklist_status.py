"""How worklists fare, and how many of their items there are. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cxr_node.config.worklists import AnyWorklist
from cxr_node.node.ledger import work_items
from cxr_node.node.ledger.destination_health import Health
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.work_items import OPEN_ITEMS, WorkState


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistStatus:
    """One worklist, and its items."""

    address: str | None
    """None: the configuration does not name it (any more), so nobody ends its items."""
    items: Mapping[WorkState, int]
    down_since: datetime | None
    next_try_at: datetime | None
    last_error: str | None


def look(
    ledger: Ledger, worklists: Iterable[AnyWorklist], health: Mapping[str, Health]
) -> Mapping[str, WorklistStatus]:
    """Each configured worklist, and others that have open items, by name."""
    found, addresses = work_items.counts(ledger), {each.name: each.where for each in worklists}
    strays = [name for name, states in found.items() if name not in addresses and any(map(states.get, OPEN_ITEMS))]
    told = {}
    for name in (*addresses, *strays):
        seen = health.get(name)
        told[name] = WorklistStatus(
            address=addresses.get(name),
            items=found.get(name) or dict.fromkeys(WorkState, 0),
            down_since=seen.down_since if seen else None,
            next_try_at=seen.next_try_at if seen else None,
            last_error=seen.last_error if seen else None,
        )
    return told
