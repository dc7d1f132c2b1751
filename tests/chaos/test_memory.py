"""A receiver that gets no more memory from the machine refuses, and lives (T36).

RLIMIT_AS stands for a full machine: threads cannot be made, allocations fail. A cgroup would end the process
instead, which is what the kills of `test_kills` are about.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.chaos.conftest import Report
from tests.chaos.crowd import SILENT, SLOW_INSIDE, Crowd, LegalPeer
from tests.chaos.roles import Role
from tests.chaos.test_crowds import hosts, radiographs
from tests.node.wire import Wire
from tests.patience import eventually


def _address_space_mib(pid: int) -> int:
    found = re.search(r"^VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.chaos)])
def test_a_receiver_without_memory_lives(tmp_path: Path, report: Report, rounds: int) -> None:
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit is not installed: apt-get install util-linux")
    with Role(tmp_path / "free", "receive") as node:
        at_rest_mib = _address_space_mib(node.pid)
    limit_mib = at_rest_mib + 200  # some twenty threads' stacks, where a crowd wants hundreds
    prefix = (prlimit, f"--as={limit_mib * 1024 * 1024}")
    with Role(tmp_path / "bound", "receive", prefix=prefix) as node:
        for number in range(rounds):
            peers = [(manner, host) for manner in (SILENT, SLOW_INSIDE) for host in hosts(60, spread=True)]
            with Crowd(node.port, peers) as crowd:
                assert eventually(lambda: crowd.left() == 0, 60)
            with LegalPeer(node.port, radiographs(1000 * number + 1)) as legal:
                served = eventually(lambda: len(legal.stored) >= 10, 60)
            assert node.lives(), node.said()[-3000:]
            assert served, legal.fared.failures[:5]
        report(
            f"limit_mib={limit_mib} at_rest_mib={at_rest_mib} rounds={rounds} restarts=0",
            afterwards=f"'{legal.fared}'",
            left_over=len(node.parts()),
        )
        assert legal.fared.failures == []
        assert node.parts() == []
        with Wire(node.port) as peer:
            peer.associate()
            assert peer.echo() == 0x0000
