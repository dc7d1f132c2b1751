"""What `cxr-node status` shows: roles, queue, destinations, what has waited longest, last instances. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cxr_node.config.schema import Config
from cxr_node.node import history, listing, waiting
from cxr_node.node.history import InstanceRow
from cxr_node.node.jobs import DeliveryState, InstanceState, PromiseState
from cxr_node.node.ledger import OPEN, Ledger
from cxr_node.node.listing import By, Oldest
from cxr_node.node.presence import RoleState

LAST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """One destination, and what is due at it."""

    address: str | None
    """None: the configuration does not name it (any more)."""
    deliveries: Mapping[DeliveryState, int]
    oldest: Oldest | None
    down_since: datetime | None
    next_try_at: datetime | None
    last_error: str | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at the ledger."""

    at: datetime
    roles: Mapping[str, RoleState]
    instances: Mapping[InstanceState, int]
    """By state."""
    oldest: Oldest | None
    """Of the instances that wait to be judged."""
    destinations: Mapping[str, Mapping[DeliveryState, int]]
    """By name, then by state; those of the configuration, and those that unsettled deliveries still name."""
    health: Mapping[str, DestinationStatus]
    uncommitted: Mapping[str, Mapping[PromiseState, int]]
    """Results that a destination accepted and has not committed itself to, by name, then by state."""
    addresses: Mapping[str, str]
    last_received: Mapping[By, Mapping[str, datetime]]
    """By sender and by station."""
    recent: Sequence[InstanceRow]


def look(ledger: Ledger, config: Config) -> Status:
    """Read the ledger once."""
    queues, oldest = history.queues(ledger), listing.oldest_deliveries(ledger)
    addresses = {to.name: str(to.address) for to in config.destinations}
    strays = [name for name, states in queues.items() if name not in addresses and _unsettled(states)]
    none = dict.fromkeys(DeliveryState, 0)
    around = waiting.surroundings(ledger, config.spool.path, addresses)
    places = {name: queues.get(name, none) for name in (*addresses, *strays)}
    return Status(
        at=around.now,
        roles=around.roles,
        instances=history.counts(ledger),
        oldest=listing.oldest_instance(ledger),
        destinations=places,
        health={name: _place(name, around, addresses, states, oldest) for name, states in places.items()},
        uncommitted=history.uncommitted(ledger),
        addresses=addresses,
        last_received={by: listing.last_received(ledger, by) for by in (By.SENDER, By.STATION)},
        recent=history.recent(ledger, LAST),
    )


def _unsettled(states: Mapping[DeliveryState, int]) -> bool:
    return any(states[state] for state in (*OPEN, DeliveryState.DEAD))


def _place(
    name: str,
    around: waiting.Surroundings,
    addresses: Mapping[str, str],
    states: Mapping[DeliveryState, int],
    oldest: Mapping[str, Oldest],
) -> DestinationStatus:
    seen = around.health.get(name)
    return DestinationStatus(
        address=addresses.get(name),
        deliveries=states,
        oldest=oldest.get(name),
        down_since=seen.down_since if seen else None,
        next_try_at=seen.next_try_at if seen else None,
        last_error=seen.last_error if seen else None,
        last_success_at=seen.last_success_at if seen else None,
    )
