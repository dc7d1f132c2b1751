"""Whether a role runs is seen from outside, however it ended: in order, of a fault, or by kill -9."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from cxr_node.node.process import supervisor
from cxr_node.node.process.supervisor import Presence

FORKS = multiprocessing.get_context("forkserver")


def _work(spool: Path, ready: Event) -> None:
    with Presence(spool, "work") as present:
        present.ready()
        ready.set()
        threading.Event().wait()


def started(spool: Path) -> multiprocessing.process.BaseProcess:
    ready = FORKS.Event()
    process = FORKS.Process(target=_work, args=(spool, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    return process


def test_a_role_that_never_ran_is_not_running(tmp_path: Path) -> None:
    assert {role: (state.running, state.since) for role, state in supervisor.look(tmp_path).items()} == {
        "receive": (False, None),
        "work": (False, None),
        "deliver": (False, None),
    }


def test_a_role_runs_since_it_was_ready_and_until_it_ended(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with Presence(tmp_path, "deliver") as present:
        present.progress()
        assert not supervisor.look(tmp_path)["deliver"].running, "it is not ready yet"
        present.ready()
        present.progress()
        seen = supervisor.look(tmp_path)
        assert seen["deliver"].running
        assert seen["deliver"].since is not None
        assert before <= seen["deliver"].since <= datetime.now(UTC)
        assert not seen["work"].running
    ended = supervisor.look(tmp_path)["deliver"]
    assert (ended.running, ended.in_order) == (False, True)
    assert ended.since is not None
    assert ended.since >= seen["deliver"].since


def test_a_role_that_was_told_to_stop_runs_until_it_has_ended(tmp_path: Path) -> None:
    with Presence(tmp_path, "receive") as present:
        present.ready()
        assert not supervisor.look(tmp_path)["receive"].stopping
        present.stopping()
        seen = supervisor.look(tmp_path)["receive"]
        assert (seen.running, seen.stopping) == (True, True)
        with Presence(tmp_path, "receive") as next_one:
            next_one.ready()
            assert not supervisor.look(tmp_path)["receive"].stopping, "another lets callers in"
    ended = supervisor.look(tmp_path)["receive"]
    assert (ended.running, ended.stopping) == (False, False)


def test_killed_it_does_not_run_though_its_file_is_there_and_its_number_lives(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert supervisor.look(tmp_path)["work"].running
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    (file,) = (tmp_path / "run").glob("work-*.alive")
    file.rename(file.with_name(f"work-{os.getpid()}-00000000.alive"))  # a living process has the number now
    seen = supervisor.look(tmp_path)["work"]
    assert (seen.running, seen.in_order) == (False, False)
    assert seen.since is not None, "its last sign of life"
    with Presence(tmp_path, "work") as present:
        present.ready()
        assert supervisor.look(tmp_path)["work"].processes == 1
        assert len(list((tmp_path / "run").glob("work-*.alive"))) == 1, "what the dead one left is gone"


def test_several_processes_of_a_role_are_one_role_until_the_last_ends(tmp_path: Path) -> None:
    first, second = started(tmp_path), started(tmp_path)
    assert supervisor.look(tmp_path)["work"].processes == 2
    for process in (first, second):
        assert supervisor.look(tmp_path)["work"].running
        process.kill()
        process.join(60)
    assert not supervisor.look(tmp_path)["work"].running


def test_what_dies_of_a_fault_did_not_end_in_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), Presence(tmp_path, "receive") as present:
        present.ready()
        raise ValueError("broken")
    assert supervisor.look(tmp_path)["receive"].in_order is False


def test_a_file_of_rubbish_and_a_folder_that_cannot_be_written_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "work-1-a.alive").write_bytes(b"[\xff")
    seen = supervisor.look(tmp_path)["work"]
    assert (seen.running, seen.in_order) == (False, False)
    (tmp_path / "a").write_text("no folder")
    with Presence(tmp_path / "a", "work") as present:
        present.ready()
        present.progress()
