"""What a test has left behind: processes that still run, and sockets that still listen.

The process of the tests adopts orphans (PR_SET_CHILD_SUBREAPER), so whatever a test has started, and whatever that has
started, is among its descendants until it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

import psutil

from tests import postgres
from tests.patience import eventually
from tests.processes import children, descendants, words_of

_PR_SET_CHILD_SUBREAPER = 36
_OF_THE_RUN = ("multiprocessing.forkserver", "multiprocessing.resource_tracker", "cxr_node.dicom.pixels.sandbox")
"""Helpers of the process itself, which end with it; what they start is the tests'."""
_GOES_S = 60.0
"""What is on its way out may take so long; only a run that fails waits for it."""


def adopt_orphans() -> None:
    """Let orphans of this process become its children instead of those of init."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def running() -> dict[int, str]:
    """Command line of each descendant; without the dead, which only wait to be reaped, and without helpers."""
    own = os.getpid()
    found = {pid: " ".join(words_of(pid)) for pid in descendants(own)}
    helpers = {pid for pid in children(own) if any(name in found.get(pid, "") for name in _OF_THE_RUN)}
    return {pid: words for pid, words in found.items() if words and pid not in helpers and postgres.MARK not in words}


def listening() -> set[str]:
    """Addresses at which this process listens."""
    return {
        f"{found.laddr.ip}:{found.laddr.port}"
        for found in psutil.Process().net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }


class Lookout:
    """Remembers what was there, and tells what has come since and does not go."""

    def __init__(self) -> None:
        self._pids, self._addresses = set(running()), listening()

    def left(self) -> list[str]:
        """Processes and addresses that are still there after a patient wait; the processes are killed."""
        eventually(lambda: not any(self._since()), _GOES_S)
        processes, addresses = self._since()
        for pid in processes:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        found = [f"process {pid}: {words[:300]}" for pid, words in processes.items()]
        return found + [f"listens at {address}" for address in sorted(addresses)]

    def _since(self) -> tuple[dict[int, str], set[str]]:
        processes = {pid: words for pid, words in running().items() if pid not in self._pids}
        return processes, listening() - self._addresses
