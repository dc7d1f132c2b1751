"""Drift as page, metrics and alerts show it: of each configured profile, looked at every ten minutes at most.

numpy and scipy come only once there are films enough for a reference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cxr_node.config.schema import Config
from cxr_node.node.ledger import films
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.web.monitoring import facts

if TYPE_CHECKING:
    from cxr_node.assurance.drift import Drift

EVERY_S = 600.0
_lock = threading.Lock()
_seen: dict[int, tuple[Ledger, float, Mapping[str, Drift | int]]] = {}


def look(config: Config, ledger: Ledger) -> Mapping[str, Drift | int]:
    """By profile: what was seen, or how many films there are where there are too few for a reference."""
    with _lock:
        found = _seen.get(id(ledger))
        if found is None or found[0] is not ledger or time.monotonic() - found[1] > EVERY_S:
            told = {name: _one(ledger, name, weights) for name, weights in _profiles(config).items()}
            _seen.clear()
            found = _seen[id(ledger)] = (ledger, time.monotonic(), told)
        return found[2]


def _profiles(config: Config) -> dict[str, str]:
    return {f"{each.name} {each.version}": each.weights_sha256 for each in facts.profiles(config)}


def _one(ledger: Ledger, profile: str, weights_sha256: str) -> Drift | int:
    number = films.measured(ledger, weights_sha256)
    if number < films.REFERENCE_FILMS and films.reference(ledger, weights_sha256) is None:
        return number
    from cxr_node.assurance import agreement, drift

    return drift.look(ledger, weights_sha256, agreement.answers(ledger, profile)) or number
