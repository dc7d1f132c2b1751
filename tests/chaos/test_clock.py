"""The wall clock jumps a day forward and two back while the node works (FAULTS T24); libfaketime moves it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cxr_node.node.jobs import InstanceState
from tests.chaos.accounting import complete, settle
from tests.chaos.archive import Archive, listening
from tests.chaos.conftest import Report
from tests.chaos.node import Node, wait
from tests.chaos.senders import Modality

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
POLL_S = 30.0
"""Of the worker and of the couriers: what a lost wake-up may cost, so what a jump may cost."""
SLACK_S = 15.0


@pytest.mark.parametrize(
    ("images", "jumps"),
    [
        (2, ("+1d", "-1d")),
        pytest.param(20, ("+1d", "-1d", "+0", "+30d", "-30d"), marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_clock_jumps(tmp_path: Path, profile: Path, report: Report, images: int, jumps: tuple[str, ...]) -> None:
    if not LIBRARIES:
        pytest.skip("CLOCK JUMPS ARE NOT TESTED: libfaketime is not installed: apt-get install libfaketime")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    archives = listening(tmp_path, "steady", "steady")
    steady, absent = archives
    absent.kill()
    prefix = (
        "env",
        f"LD_PRELOAD={LIBRARIES[0]}",
        f"FAKETIME_TIMESTAMP_FILE={offset}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )
    delays_s: list[float] = []
    with Node(tmp_path / "node", profile, archives, prefix=prefix) as node:
        modality = Modality(tmp_path / "modality", node.address)
        modality.send(modality.take(*range(images)))
        for number, jump in enumerate(jumps, 1):
            offset.write_text(jump)
            began = time.monotonic()
            modality.send(modality.take(*range(number * images, (number + 1) * images)))
            wait(lambda all_=(number + 1) * images: _has(steady, all_), POLL_S + SLACK_S, f"delivery after {jump}")
            delays_s.append(time.monotonic() - began)
            assert node.counts()[InstanceState.DEAD] == 0, f"dead early, after {jump}"
        absent.start()
        began = time.monotonic()
        wait(
            lambda: len(complete(absent.kept())) == (len(jumps) + 1) * images,
            POLL_S + SLACK_S + images,
            "the absent one",
        )
        delays_s.append(time.monotonic() - began)
        wait(node.is_idle, 10, "everything is settled")
        node.shut_down()
    accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(accounting, jumps=",".join(jumps), restarts=node.restarts.total(), longest_delay_s=f"{max(delays_s):.1f}")
    assert accounting.is_clean
    assert accounting.delivered == (len(jumps) + 1) * images


def _has(archive: Archive, images: int) -> bool:
    return len(complete(archive.kept())) == images
