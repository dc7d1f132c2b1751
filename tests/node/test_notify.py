"""Bells are heard, and never hold anybody up."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cxr_node.node.process.notify import Role, Wakeup, notify
from tests.patience import PATIENCE_S


@pytest.fixture(params=["short", "long"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Socket addresses hold 108 bytes; a spool may lie deeper."""
    return tmp_path if request.param == "short" else tmp_path / ("deep" * 30) / ("deeper" * 20)


def test_a_ring_wakes(folder: Path) -> None:
    with closing(Wakeup(folder, Role.WORK)) as wakeup:
        thread = threading.Timer(0.05, notify, (folder, Role.WORK))
        thread.start()
        assert wakeup.wait(PATIENCE_S)
        thread.join()


def test_a_ring_before_the_wait_is_not_lost_and_many_are_one(folder: Path) -> None:
    with closing(Wakeup(folder, Role.WORK)) as wakeup:
        assert [notify(folder, Role.WORK) for _ in range(3)] == [1, 1, 1]
        assert wakeup.wait(0)
        assert not wakeup.wait(0)


def test_a_bell_hears_only_its_role(folder: Path) -> None:
    with closing(Wakeup(folder, Role.WORK)) as work, closing(Wakeup(folder, Role.DELIVER)) as deliver:
        assert notify(folder, Role.DELIVER) == 1
        assert deliver.wait(0)
        assert not work.wait(0)


def test_everybody_of_a_role_wakes(folder: Path) -> None:
    with closing(Wakeup(folder, Role.WORK)) as one, closing(Wakeup(folder, Role.WORK)) as other:
        assert notify(folder, Role.WORK) == 2
        assert one.wait(0)
        assert other.wait(0)


def test_a_full_bell_does_not_block(folder: Path) -> None:
    with closing(Wakeup(folder, Role.WORK)) as wakeup:
        assert all(notify(folder, Role.WORK) == 1 for _ in range(2000))
        assert wakeup.wait(0)


def test_ringing_nobody_is_no_error(folder: Path) -> None:
    assert notify(folder, Role.WORK) == 0  # not even a folder
    with closing(Wakeup(folder, Role.WORK)):
        pass
    assert notify(folder, Role.WORK) == 0


def test_the_bell_of_a_dead_process_is_taken_down(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    dead = tmp_path / "run" / "work-4711-dead.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(dead))
    left.close()  # as the kernel does for a killed process: the name stays
    with closing(Wakeup(tmp_path, Role.WORK)) as wakeup:
        assert notify(tmp_path, Role.WORK) == 1
        assert wakeup.wait(0)
    assert not dead.exists()


def test_a_timeout_is_silence(tmp_path: Path) -> None:
    with closing(Wakeup(tmp_path, Role.WORK)) as wakeup:
        assert not wakeup.wait(0.01)
