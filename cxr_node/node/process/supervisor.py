"""The life of the node's processes: signals, signs of life, and for `serve` a supervisor with a watchdog.

Knows nothing of DICOM and no ledger: it starts commands, ends them in order, and restarts what died or hangs. Each role
holds a lock on a file in the spool, which the kernel opens when the process dies, however it dies; so neither kill -9
nor a reused process number can deceive. The content of the file only says since when.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from cxr_node.node.process import logs
from cxr_node.node.process.notify import START
from cxr_node.node.process.service_manager import NOTIFY_SOCKET, Notifier, Watch, abort

log = logging.getLogger(__name__)

ROLES = ("receive", "work", "deliver")
STOP = (signal.SIGTERM, signal.SIGINT)
HELD = frozenset({*STOP, signal.SIGHUP})


@contextmanager
def held() -> Iterator[None]:
    """Block the signals from here on, for `stop_event`; where the start fails, the process is left as it was.

    For the main thread, before any library starts threads: they inherit what is blocked. So do programs that are
    started later (`supervise` gives its own a free mask).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def stop_event(
    on_stop: Callable[[], None] | None = None,
    on_hangup: Callable[[], None] | None = None,
    hurry: threading.Event | None = None,
) -> threading.Event:
    """Event set by SIGTERM and SIGINT, also by one that came while they were `held`; to the end of the process.

    `on_stop` may wake the process where it sleeps.

    Parameters
    ----------
    on_hangup : what SIGHUP does; without it log files that were moved away are opened again, nothing else
    hurry : set by the second SIGTERM or SIGINT
    """
    hang_up = on_hangup or logs.on_hangup()
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    stop = threading.Event()

    def wait() -> None:
        while True:
            number = signal.sigwait(HELD)
            if number == signal.SIGHUP:
                hang_up()
                continue
            if stop.is_set() and hurry is not None:
                hurry.set()
            stop.set()
            if on_stop is not None:
                on_stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop


EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: a restart cannot help (`RestartPreventExitStatus=78` in the units)."""

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_HEALTHY_AFTER_S = 60.0  # a child that lived that long starts again with the first delay
_LOOK_EVERY_S = 0.2
_HEAD_START_S = 0.3  # of the receiver: a PACS waits while the ledger is checked on few cores
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_S = 30.0
"""From SIGTERM to SIGKILL of a supervised process, beyond what it was told to wait."""
START_S = 180.0
"""From a role's start until it is ready, or asks for more time; TimeoutStartSec of the slowest unit."""
_LAST_WORDS_S = 5.0
SIGN_EVERY_S = 15.0
"""Between two signs of life."""
_SUFFIX = ".alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One process to keep alive."""

    name: str
    argv: tuple[str, ...]
    """They inherit this process's stderr, and a signal mask that blocks nothing."""
    grace_s: float = GRACE_S
    """From SIGTERM to SIGKILL."""
    is_vital: bool = True
    """Where it refuses its configuration, all end; else it alone is tried again later."""
    start_s: float | None = None
    """From its start until it says that it is ready (TimeoutStartSec); None: it says nothing of itself."""
    watchdog_s: float = 300.0
    """From one progress to the next (WatchdogSec)."""


@dataclass(slots=True, kw_only=True)
class _Child:
    command: Command
    start: str
    """Names this start to those that begin with it."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    deaths: int = field(default=0)
    watch: Watch | None = None


def supervise(
    commands: Iterable[Command],
    stop: threading.Event,
    notifier: Notifier | None = None,
    hangup: threading.Event | None = None,
    hurry: threading.Event | None = None,
) -> int:
    """Keep commands running until `stop` is set, then end them in the given order; pass hangups and `hurry` on to them.

    Call it from the thread that lives as long as the children shall: they get SIGTERM when it ends,
    even by SIGKILL.

    Returns
    -------
    exit status : 0 after a stop; 78 as soon as a vital command refuses its configuration.
    """
    notifier, hangup, hurry = notifier or Notifier(), hangup or threading.Event(), hurry or threading.Event()
    now = time.monotonic()
    start = secrets.token_hex(8)
    children = [
        _Child(command=each, start=start, due_at=now + place * _HEAD_START_S) for place, each in enumerate(commands)
    ]
    status = 0
    try:
        notifier.ready()
        while not stop.is_set() and status == 0:
            status = _look_after(children)
            notifier.progress()
            if hangup.is_set():
                hangup.clear()
                _pass_on(children)
            if status == 0:
                stop.wait(_LOOK_EVERY_S)
    finally:
        notifier.stopping()
        for child in children:  # nobody listens from here on: a socket that is not read holds up who writes to it
            if child.watch is not None:
                child.watch.close()
        _end(children, hurry)
    return status


def _look_after(children: Sequence[_Child]) -> int:
    """Note which children died or hang, start those that are due; 78 if one died of its configuration."""
    for child in children:
        if child.process is not None and child.watch is not None and child.watch.is_hung():
            log.error("hung role=%s pid=%d", child.command.name, child.process.pid)
            abort(child.process, _LAST_WORDS_S)
        if child.process is not None and (code := child.process.poll()) is not None:
            child.process = None
            if code == EXIT_CONFIG and child.command.is_vital:
                log.error("refused role=%s code=%d", child.command.name, code)
                return EXIT_CONFIG
            _postpone(child, code)
        if child.process is None and time.monotonic() >= child.due_at:
            _start(child)
    return 0


def _postpone(child: _Child, code: int) -> None:
    now = time.monotonic()
    child.deaths = 0 if now - child.started_at >= _HEALTHY_AFTER_S else child.deaths
    delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2**child.deaths)
    child.deaths += 1
    child.due_at = now + delay_s
    log.error("ended role=%s code=%d restart_in_s=%.1f", child.command.name, code, delay_s)


def _start(child: _Child) -> None:
    bind = partial(_die_with_parent, ctypes.CDLL(None).prctl, os.getpid())
    environment = os.environ | {START: "" if child.started_at else child.start}
    environment.pop(NOTIFY_SOCKET, None)  # of this process, for which none of them speaks
    if child.watch is not None:
        child.watch.close()
    if child.command.start_s is not None:
        child.watch = Watch(child.command.start_s, child.command.watchdog_s, child.command.grace_s)
        environment[NOTIFY_SOCKET] = child.watch.address
    child.started_at = time.monotonic()
    # the terminal's Ctrl-C goes to the supervisor only: it knows the order of the stop
    child.process = subprocess.Popen(
        child.command.argv, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=bind, env=environment
    )
    log.info("started role=%s pid=%d", child.command.name, child.process.pid)


def _pass_on(children: Sequence[_Child]) -> None:
    for child in children:
        if child.process is not None and child.process.poll() is None:
            child.process.send_signal(signal.SIGHUP)


def _die_with_parent(prctl: Callable[[int, int], int], parent: int) -> None:
    """Run in the new process before exec: SIGTERM when the supervisor is gone (prctl(2)).

    The supervisor blocks signals (`held`), and a mask outlives exec. A hangup is ignored until the role waits for
    it: an earlier one ends nothing.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it went before the line above
        os._exit(1)


def _end(children: Sequence[_Child], hurry: threading.Event) -> None:
    """SIGTERM one after the other: the receiver stops accepting before the worker finishes its jobs."""
    for child in children:
        process = child.process
        if process is None:
            continue
        process.terminate()
        try:
            _wait(process, child.command.grace_s, hurry)
        except subprocess.TimeoutExpired:
            log.error("killed role=%s grace_s=%.0f", child.command.name, child.command.grace_s)
            process.kill()
            process.wait()
        log.info("stopped role=%s code=%d", child.command.name, process.returncode)
        child.process = None


def _wait(process: subprocess.Popen[bytes], grace_s: float, hurry: threading.Event) -> None:
    """Wait for a process that was told to stop, and tell it again when told to hurry.

    Raises
    ------
    subprocess.TimeoutExpired : it takes longer than `grace_s`.
    """
    deadline, is_hurried = time.monotonic() + grace_s, False
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_S)
            return
        if time.monotonic() >= deadline:
            raise subprocess.TimeoutExpired(process.args, grace_s)
        if hurry.is_set() and not is_hurried:
            is_hurried = True
            process.terminate()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """State of one role, over all its processes."""

    running: bool
    processes: int
    since: datetime | None
    """When it became ready or, if it does not run, ended; None if it never ran with this spool."""
    in_order: bool
    """It ended as requested; if it was killed, `since` is its last sign of life."""
    seen_at: datetime | None
    """Last progress of its main loop, to `SIGN_EVERY_S`."""
    stopping: bool = False
    """All of its processes have been told to stop."""


class Presence(Notifier):
    """Reports how this process is doing to the service manager and, through the spool, to other processes.

    A report that cannot be written is skipped: no role ends because of it.
    """

    def __init__(self, spool_path: Path, role: str) -> None:
        super().__init__()
        self._folder, self._role = spool_path / "run", role
        self._file: int | None = None
        self._signed_at = float("-inf")
        self._told: dict[str, str | int] = {"pid": os.getpid()}

    def ready(self) -> None:
        """The process is ready."""
        if self._file is None:
            with self._forgiving():
                self._appear()
        super().ready()

    def progress(self) -> None:
        """The main loop made progress."""
        super().progress()
        if self._file is not None and (now := time.monotonic()) - self._signed_at >= SIGN_EVERY_S:
            self._signed_at = now
            with self._forgiving():
                os.utime(self._file)

    def stopping(self) -> None:
        """The process has begun to stop."""
        if self._file is not None:
            with self._forgiving():
                self._tell(stopping_at=_now())
        super().stopping()

    def close(self) -> None:
        """The process ends as requested."""
        if self._file is not None:
            with self._forgiving():
                self._tell(ended_at=_now())
            os.close(self._file)
            self._file = None

    def _appear(self) -> None:
        """Lock the file before it is visible, and delete those of dead processes of the role."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        dead = [path for path in _files(self._folder, self._role) if not _is_held(path)]
        path = self._folder / f"{self._role}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        hidden = path.with_suffix(".new")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._tell(ready_at=_now())
        hidden.rename(path)
        for each in dead:
            each.unlink(missing_ok=True)

    def _tell(self, **more: str) -> None:
        self._told |= more
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(self._told).encode(), 0)

    def _forgiving(self) -> suppress:
        return suppress(OSError)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, Exception):
            self.close()
        elif self._file is not None:  # it died of a fault: ended_at stays missing
            os.close(self._file)
            self._file = None


def look(spool_path: Path, roles: Iterable[str] = ROLES) -> dict[str, RoleState]:
    """State of each role."""
    return {role: _state(spool_path / "run", role) for role in roles}


def _state(folder: Path, role: str) -> RoleState:
    alive: list[tuple[datetime | None, datetime]] = []
    staying = 0
    ended: list[tuple[datetime, bool]] = []
    for path in _files(folder, role):
        with suppress(OSError):
            held, told = _is_held(path), _read(path)
            seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            if held:
                alive.append((told.get("ready_at"), seen_at))
                staying += "stopping_at" not in told
            else:
                ended.append((told.get("ended_at") or seen_at, "ended_at" in told))
    if alive:
        begun = [at for at, _ in alive if at is not None]
        since, seen = min(begun, default=None), max(seen_at for _, seen_at in alive)
        return RoleState(
            running=True, processes=len(alive), since=since, in_order=True, seen_at=seen, stopping=staying == 0
        )
    at, in_order = max(ended, default=(None, True), key=lambda one: one[0])
    return RoleState(running=False, processes=0, since=at, in_order=in_order, seen_at=at)


def _files(folder: Path, role: str) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.glob(f"{role}-*{_SUFFIX}")


def _is_held(path: Path) -> bool:
    """Whether a living process holds it; False where it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _read(path: Path) -> dict[str, datetime]:
    """Times of the file; without those that cannot be read, as of one that is just being written."""
    try:
        told = json.loads(path.read_text("utf-8"))
        return {name: datetime.fromisoformat(at) for name, at in told.items() if name.endswith("_at")}
    except (ValueError, AttributeError, TypeError):
        return {}


def _now() -> str:
    return datetime.now(UTC).isoformat()
