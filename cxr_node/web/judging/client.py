"""The verdict on one file that somebody uploaded: asked of a child process, which is started when it is needed.

The process `web` never loads the network, and outlives whatever a file does to the process that does. Knows no form.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cxr_node.config.page import TrySection
from cxr_node.config.schema import Config
from cxr_node.node.process.service_manager import abort
from cxr_node.web.judging import frames
from cxr_node.web.judging.frames import Wanted
from cxr_node.web.problem import Problem

log = logging.getLogger(__name__)

PLACES = 8
"""Requests that may wait with their files; more are answered 503."""
_RETRY_S = "5"
_START_S, _STARTS = 60.0, 2
"""How long a child may take to load the network, and how many may try: what hangs there is no fault of the file."""
_LAST_WORDS_S = 2.0
_COMMAND = (sys.executable, "-m", "cxr_node.web.judging.judge")
_STATUS = {"memory": 422, "model": 503, "machine": 503}
"""Of a fault that the child names; any other is ours."""


def scratch(folder: Path) -> BinaryIO:
    """Open a file without a name in a spool: gone with the last process that holds it, whatever happens."""
    place = folder / "run"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The answer to one file."""

    prediction: dict[str, Any]
    """As `cxr-node classify --json`, without the path."""
    shown: dict[str, Any]
    """For people: name, style, number (None where none may be stated), thresholds, sentence."""
    unreadable: bool
    parts: dict[str, tuple[int, int]]
    """Where in `file` each part begins, and its length."""
    file: BinaryIO | None

    def part(self, name: str) -> bytes:
        """One part in full; KeyError where there is none."""
        begin, length = self.parts[name]
        assert self.file is not None  # noqa: S101 - it has parts
        return os.pread(self.file.fileno(), length, begin)

    def close(self) -> None:
        """Give the file back."""
        if self.file is not None:
            self.file.close()


class _Child:
    """One process with the network."""

    def __init__(self, config: Config) -> None:
        """Start it; from the event loop's thread, for it dies with the thread that started it (prctl(2))."""
        self._line, its_end = socket.socketpair()
        with its_end:
            number = its_end.fileno()
            self.process = subprocess.Popen(
                (*_COMMAND, str(number), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(number,),
                process_group=0,
            )
        self._config = config

    def load(self) -> dict[str, Any]:
        """Wait until it has the network, or says why not."""
        return self.ask({"config": self._config.model_dump(mode="json")}, (), _START_S)

    def ask(self, message: dict[str, Any], files: Sequence[BinaryIO], timeout_s: float) -> dict[str, Any]:
        """Exchange two messages.

        Raises
        ------
        TimeoutError : it takes too long. EOFError, OSError : it has died.
        """
        deadline = time.monotonic() + timeout_s
        self._line.settimeout(timeout_s)
        frames.send(self._line, message, [file.fileno() for file in files])
        said, _ = frames.receive(self._line, deadline)
        return said

    def abort(self) -> None:
        """End one that hangs: it says where."""
        abort(self.process, _LAST_WORDS_S)
        self.end()

    def end(self) -> None:
        """Kill it, and the process that decodes for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._line.close()


class Judge:
    """Asks one file at a time; the others wait in the order in which they came."""

    def __init__(self, config: Config, settings: TrySection) -> None:
        self._config, self._settings = config, settings
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._unload: asyncio.TimerHandle | None = None
        self._waiting = 0
        self.verdicts: Counter[str] = Counter()
        """How often each was given, since this process started."""

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while files arrive and are judged.

        Raises
        ------
        Problem : 503, all are taken.
        """
        if self._waiting >= PLACES:
            sentence = f"{PLACES} requests wait already; try again in {_RETRY_S} s"
            raise Problem(503, "busy", sentence, {"Retry-After": _RETRY_S})
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def judge(self, file: BinaryIO, wanted: Wanted, *, picture: bool, drawn: bool = False) -> Judged:
        """Judge one file; `drawn` are the pictures of the demo, whose patient is known.

        Raises
        ------
        Problem : 422, 500, 503 or 504: it has cost the child too much, or there is no child.
        """
        target = scratch(self._config.spool.path) if wanted is not Wanted.NOTHING else None
        files = (file,) if target is None else (file, target)
        message = {"wanted": wanted, "picture": picture, "drawn": drawn}
        try:
            async with self._turn:
                said = await self._asked(message, files)
        except BaseException:
            if target is not None:
                target.close()
            raise
        self.verdicts[said["prediction"]["verdict"]] += 1
        log.info("judged verdict=%s reason=%s", said["prediction"]["verdict"], said["prediction"]["reason"] or "-")
        parts = {name: (begin, length) for name, (begin, length) in said["parts"].items()}
        shown, unreadable = said["shown"], said["unreadable"]
        return Judged(prediction=said["prediction"], shown=shown, unreadable=unreadable, parts=parts, file=target)

    def close(self) -> None:
        """End the child; the next file starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    async def _asked(self, message: dict[str, Any], files: Sequence[BinaryIO]) -> dict[str, Any]:
        if self._unload is not None:
            self._unload.cancel()
        try:
            child = await self._running()
            said = await asyncio.to_thread(child.ask, message, files, self._settings.timeout_s)
        except TimeoutError:
            self.close()
            limit = f"{self._settings.timeout_s:g} s (web.try.timeout_s)"
            log.warning("a file was given up after %s", limit)
            raise Problem(504, "timeout", f"judging this file took longer than {limit}") from None
        except (EOFError, OSError):
            self._bury()
            sentence = "the process that judges ended at this file; the next file gets another one"
            raise Problem(500, "judge-ended", sentence) from None
        except BaseException:  # the request was given up, and its answer must not become the next one's
            self.close()
            raise
        self._unload = asyncio.get_running_loop().call_later(self._settings.idle_unload_s, self._rest)
        if "fault" in said:
            raise self._fault(said)
        return said

    async def _running(self) -> _Child:
        if self._child is not None and self._child.process.poll() is not None:
            self._bury()
        if self._child is None:
            self._child, said = await self._loaded()
            if "fault" in said:
                raise self._fault(said)
            log.info("the network is loaded pid=%d", self._child.process.pid)
        return self._child

    async def _loaded(self) -> tuple[_Child, dict[str, Any]]:
        for _ in range(_STARTS):
            child = self._child = _Child(self._config)
            try:
                return child, await asyncio.to_thread(child.load)
            except TimeoutError:
                self._child = None
                log.error("the network was not loaded within %g s; where it hung follows", _START_S)
                await asyncio.to_thread(child.abort)
        sentence = f"the network was not loaded within {_START_S:g} s"
        raise Problem(503, "model", sentence, {"Retry-After": _RETRY_S})

    def _fault(self, said: dict[str, Any]) -> Problem:
        code = said["fault"]
        if code in ("memory", "model"):
            self.close()
        status = _STATUS.get(code, 500)
        return Problem(status, code, said["detail"], {"Retry-After": _RETRY_S} if status == 503 else {})

    def _bury(self) -> None:
        if self._child is not None:
            self._child.end()
            log.error("the process that judges ended code=%s", self._child.process.returncode)
            self._child = None

    def _rest(self) -> None:
        if not self._turn.locked():
            log.info("the network is unloaded after %g s without a file", self._settings.idle_unload_s)
            self.close()
