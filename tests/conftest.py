"""For all tests: torch's threads sleep while they wait, as in the worker; spinning ones starve what else runs here."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

NETWORK = {"node", "pacs", "viewer", "test_demo.py"}
"""Folders and files whose tests open sockets and start processes; `pytest -m "not network"` leaves the unit tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by place, so that no new test of those rooms is forgotten."""
    for item in items:
        if NETWORK & set(item.path.parts):
            item.add_marker("network")
