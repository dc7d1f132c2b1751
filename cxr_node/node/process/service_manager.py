"""What a process and its service manager say to each other, sd_notify(3): both sides, for `serve` is such a manager.

A process that hangs at its start or at its work is noticed, as by systemd; it need not know which of the two it has.
Knows neither roles nor the ledger.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress

from sdnotify import SystemdNotifier

NOTIFY_SOCKET = "NOTIFY_SOCKET"
_LARGEST_BYTES = 4096


class Notifier:
    """Reports to the service manager (sd_notify(3)); does nothing without one.

    `progress` is for the main loop only. A thread of its own that fed the watchdog would only prove that
    the thread lives.
    """

    _REPEAT_S = 1.0
    _START_USEC = 60_000_000

    def __init__(self) -> None:
        self._systemd = SystemdNotifier() if os.environ.get(NOTIFY_SOCKET) else None
        if self._systemd is not None and self._systemd.socket is not None:
            self._systemd.socket.setblocking(False)  # a manager that is frozen reads nothing, and must hold up nobody
        self._fed_at = float("-inf")
        self._is_ready = False

    def ready(self) -> None:
        """The process is ready."""
        self._is_ready = True
        self._say("READY=1")

    def progress(self) -> None:
        """The main loop made progress; before `ready`, a long start did."""
        now = time.monotonic()
        if now - self._fed_at >= self._REPEAT_S:
            self._fed_at = now
            self._say("WATCHDOG=1" if self._is_ready else f"EXTEND_TIMEOUT_USEC={self._START_USEC}")

    def stopping(self) -> None:
        """The process has begun to stop."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if self._systemd is not None:
            self._systemd.notify(state)


class Watch:
    """What one process tells of itself, from its start on: whether it hangs.

    Parameters
    ----------
    start_s : from its start until it is ready, or asks for more time; TimeoutStartSec
    watchdog_s : from one progress to the next, once it is ready; WatchdogSec
    stop_s : from when it stops to its end; TimeoutStopSec
    """

    def __init__(self, start_s: float, watchdog_s: float, stop_s: float) -> None:
        self._watchdog_s, self._stop_s = watchdog_s, stop_s
        self._until = time.monotonic() + start_s
        self.address = f"@cxr-node-{secrets.token_hex(8)}"
        """For the environment variable NOTIFY_SOCKET; in the abstract namespace, where no file is left behind."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + self.address[1:])

    def is_hung(self) -> bool:
        """Whether it has said nothing for too long."""
        with suppress(BlockingIOError):
            while True:
                for assignment in self._socket.recv(_LARGEST_BYTES).decode(errors="replace").splitlines():
                    self._hear(assignment)
        return time.monotonic() >= self._until

    def _hear(self, assignment: str) -> None:
        name, _, value = assignment.partition("=")
        now = time.monotonic()
        if name in ("READY", "WATCHDOG"):
            self._until = now + self._watchdog_s
        elif name == "STOPPING":
            self._until = now + self._stop_s
        elif name == "EXTEND_TIMEOUT_USEC" and value.isdecimal():
            self._until = max(self._until, now + int(value) / 1e6)

    def close(self) -> None:
        """Hear no more of it."""
        self._socket.close()


def abort(process: subprocess.Popen[bytes], last_words_s: float) -> None:
    """End one that hangs, as systemd's watchdog: SIGABRT, so that it says where (`logs.configure`), then SIGKILL."""
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(last_words_s)
    except subprocess.TimeoutExpired:  # it is stopped, or cannot even say that
        process.kill()
        process.wait()
