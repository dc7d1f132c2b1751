"""What `cxr-node status` shows: the queue, the destinations, the last instances. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr_node.config import Config
from cxr_node.node import history
from cxr_node.node.history import InstanceRow
from cxr_node.node.jobs import DeliveryState, InstanceState, PromiseState
from cxr_node.node.ledger import Ledger

LAST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at the ledger."""

    instances: Mapping[InstanceState, int]
    """By state."""
    destinations: Mapping[str, Mapping[DeliveryState, int]]
    """By name, then by state; those of the configuration, and those that old deliveries still name."""
    uncommitted: Mapping[str, Mapping[PromiseState, int]]
    """Results that a destination accepted and has not committed itself to, by name, then by state."""
    addresses: Mapping[str, str]
    recent: Sequence[InstanceRow]


def look(ledger: Ledger, config: Config) -> Status:
    """Read the ledger once."""
    waiting = history.queues(ledger)
    names = [to.name for to in config.destinations]
    names += [name for name in waiting if name not in names]
    none = dict.fromkeys(DeliveryState, 0)
    return Status(
        instances=history.counts(ledger),
        destinations={name: waiting.get(name, none) for name in names},
        uncommitted=history.uncommitted(ledger),
        addresses={to.name: str(to.address) for to in config.destinations},
        recent=history.recent(ledger, LAST),
    )
