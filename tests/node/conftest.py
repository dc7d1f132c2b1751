"""For the tests of the node: each engine that its ledger may be on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import postgres


@pytest.fixture(params=postgres.ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Section `ledger` of a configuration, of an empty ledger on each engine."""
    return {"ledger": postgres.section(tmp_path)} if request.param == "postgresql" else {}
