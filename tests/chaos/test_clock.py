"""The wall clock jumps a day forward and two back while the node works (FAULTS T24)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cxr_node.node.ledger.states import InstanceState
from tests.chaos.accounting import complete, settle
from tests.chaos.archive import Archive
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import Node
from tests.chaos.senders import Modality
from tests.patience import NODE_S, wait_until

DAY_S = 86400


@pytest.mark.parametrize(
    ("images", "jumps"),
    [
        (2, (1, -1)),
        pytest.param(20, (1, -1, 0, 30, -30), marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_clock_jumps(
    tmp_path: Path, profile: Path, listening: Listening, report: Report, images: int, jumps: tuple[int, ...]
) -> None:
    offset = tmp_path / "offset"
    set_clock(offset, 0)
    archives = listening("steady", "steady")
    steady, absent = archives
    absent.kill()
    delays_s: list[float] = []
    with Node(tmp_path / "node", profile, archives, clock=offset) as node:
        modality = Modality(tmp_path / "modality", node.address)
        modality.send(modality.take(*range(images)))
        for number, jump in enumerate(jumps, 1):
            set_clock(offset, jump)
            began = time.monotonic()
            modality.send(modality.take(*range(number * images, (number + 1) * images)))
            wait_until(lambda all_=(number + 1) * images: _has(steady, all_), f"delivery, clock {jump:+} d")
            delays_s.append(time.monotonic() - began)
            assert node.counts()[InstanceState.DEAD] == 0, f"dead early, clock {jump:+} d"
        absent.start()
        began = time.monotonic()
        wait_until(
            lambda: len(complete(absent.kept())) == (len(jumps) + 1) * images,
            "the absent one",
            NODE_S + images,
        )
        delays_s.append(time.monotonic() - began)
        wait_until(node.is_idle, "everything is settled")
        node.shut_down()
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(
        accounting,
        clock_days=",".join(map(str, jumps)),
        restarts=node.restarts.total(),
        longest_delay_s=f"{max(delays_s):.1f}",
    )
    assert accounting.is_clean
    assert accounting.delivered == (len(jumps) + 1) * images


def _has(archive: Archive, images: int) -> bool:
    return len(complete(archive.kept())) == images


def set_clock(offset: Path, days: int) -> None:
    """Set it as many days off the true time."""
    whole = offset.with_suffix(".new")
    whole.write_text(str(days * DAY_S))
    whole.replace(offset)
