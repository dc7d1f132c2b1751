"""SIGTERM under load, then a new start: nothing acknowledged is lost, nothing is half (FAULTS T28)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import ROLES, Node
from tests.chaos.senders import Modality
from tests.patience import NODE_S, wait_until
from tests.processes import STOP_S


@pytest.mark.parametrize(
    ("images", "stops"), [(30, 1), pytest.param(400, 8, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)])]
)
def test_stop_under_load(
    tmp_path: Path, profile: Path, chance: random.Random, listening: Listening, report: Report, images: int, stops: int
) -> None:
    archives = listening("steady", "steady")
    took_s: list[float] = []
    with Node(tmp_path / "node", profile, archives) as node:
        modality = Modality(tmp_path / "modality", node.address)
        with modality.sending(modality.take(*range(images)), associations=4):
            for stop in range(stops):
                share = (stop + chance.random()) / (stops + 1)
                wait_until(lambda some=images * share: modality.acknowledged.total() >= some, "some are acknowledged")
                took_s.append(node.stop())
                assert not list((node.spool / "incoming").iterdir())
                for role in ROLES:
                    node.start(role)
        wait_until(node.is_idle, "everything is settled", NODE_S + images)
        took_s.append(node.shut_down())
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(
        accounting,
        stops=stops,
        broken_associations=modality.broken,
        restarts=stops,
        longest_stop_s=f"{max(took_s):.1f}",
    )
    assert accounting.is_clean
    assert accounting.delivered == images
    assert not node.deaths
    assert max(took_s) <= STOP_S
