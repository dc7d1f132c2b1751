"""A disk that fills up while images come in, and has room again: FAULTS T18 and the SQLite half of T19."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from cxr_node.node.ledger.ledger import FILE_NAME
from cxr_node.node.ledger.states import InstanceState
from tests.chaos.accounting import settle
from tests.chaos.conftest import Listening, Report
from tests.chaos.node import Node
from tests.chaos.senders import Modality
from tests.patience import NODE_S, wait_until

OUT_OF_RESOURCES = 0xA700


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Path]:
    """A tmpfs of its own; skips where mounting is not permitted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"DISK FULL IS NOT TESTED: a tmpfs cannot be mounted here ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take every free byte."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler, suppress(OSError):  # others write meanwhile: until none is left
        while filler.write(bytes(4096)):
            pass
    return file


@pytest.mark.parametrize(
    ("images", "times", "watermark_mib"),
    [
        (8, 1, 0),
        pytest.param(60, 5, 0, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)], id="to-the-last-byte"),
        pytest.param(60, 5, 8, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)], id="to-the-watermark"),
    ],
)
def test_disk_full_and_back(
    tmp_path: Path, profile: Path, listening: Listening, report: Report, images: int, times: int, watermark_mib: int
) -> None:
    """Filled `times` times, each time with images in the queue and others on their way."""
    archives = listening("steady")
    resumed_s: list[float] = []
    with small_disk(tmp_path / "node" / "spool", 32 + 3 * images * times) as disk:
        spool = {"min_free_mib": watermark_mib}
        with Node(tmp_path / "node", profile, archives, spool=spool) as node:
            modality = Modality(tmp_path / "modality", node.address)
            for turn in range(times):
                first, second = (turn * images + part * images // 2 for part in range(2))
                modality.send(modality.take(*range(first, second)))
                filler = fill(disk)
                refused = modality.refused.total()
                with modality.sending(modality.take(*range(second, first + images)), batch=1):
                    wait_until(lambda least=refused + 4: modality.refused.total() >= least, "images are refused")
                    time.sleep(1.0)  # the worker and the delivery find the disk full too
                    answered, delivered = modality.acknowledged.total(), _delivered(node)
                    filler.unlink()
                    began = time.monotonic()
                    wait_until(lambda had=answered: modality.acknowledged.total() > had, "an image is taken")
                    wait_until(lambda had=delivered: _delivered(node) > had, "an image is delivered")
                    resumed_s.append(time.monotonic() - began)
                wait_until(node.is_idle, "everything is settled", NODE_S + images)
            node.shut_down()
            with closing(sqlite3.connect(node.spool / FILE_NAME)) as ledger:
                intact = ledger.execute("PRAGMA integrity_check").fetchall()
            accounting = settle(node.spool, modality.sources, modality.acknowledged, [one.kept() for one in archives])
    report(
        accounting,
        refused={f"0x{status:04X}": number for status, number in modality.refused.items()},
        restarts=node.restarts.total(),
        resumed_s=f"{max(resumed_s):.1f}",
    )
    assert set(modality.refused) == {OUT_OF_RESOURCES}
    assert intact == [("ok",)]
    assert accounting.is_clean
    assert accounting.delivered == images * times


def _delivered(node: Node) -> int:
    return node.counts()[InstanceState.DELIVERED]
