"""Each engine of the ledger, as in tests/node."""

from __future__ import annotations

from tests.node.conftest import engine

__all__ = ["engine"]
