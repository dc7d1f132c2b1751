"""A second process in which codecs run: what one image does to a codec costs that image, not the node.

Knows no codec and no image: a request is a line of JSON and bytes, an answer is bytes of the expected length or none.
The child trusts its parent; the parent takes nothing from the child but pixels (FAULTS T8, T9: codecs abort,
overrun, and loop on bytes that were made for it). Memory, time and computing have limits here, and `confine` takes
network, programs and files. The child ends when its standard input does, so it outlives nobody.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from cxr_node.errors import ResourceError
from cxr_node.process_setup import leave_no_core

TIMEOUT_S = 60.0
"""For one image; 9 megapixels of JPEG 2000 took 1.5 s on one core."""
MAX_MEMORY_BYTES = 2 * 1024**3
"""Address space of the child: 0.16 GiB, and 10 bytes for each pixel of JPEG 2000 (measured), so 1.2 GB for the 100
million of `admission.max_pixels`. The worker's unit has 4 GiB for both."""
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.sandbox")
_LENGTH_BYTES = 8
_READY = b"ready"
_ATTEMPTS = 2
_CHUNK_BYTES = 1 << 20


def environment() -> dict[str, str]:
    """What a child is told: to find the package where this process did, and to compute in one thread."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}


class Sandbox:
    """One child, started when it is first needed and again after it died."""

    def __init__(self, command: tuple[str, ...] = _COMMAND, timeout_s: float = TIMEOUT_S) -> None:
        self._command, self._timeout_s = command, timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, description: dict[str, Any], content: bytes) -> bytes | None:
        """Send one request; None where the child could not answer it, died of it, or took too long.

        A request is sent once more to a new child where the first died: somebody else may have killed it.

        Raises
        ------
        ResourceError : no child can be started on this machine.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return self._exchange(self._running(), description, content) or None
                except TimeoutError:  # an OSError, but one that would happen again
                    self._end()
                    break
                except (OSError, EOFError):
                    self._end()
            return None

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None where none runs."""
        return self._child.pid if self._child is not None else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            self._start()
        assert self._child is not None  # noqa: S101 - _start raises or sets it
        return self._child

    def _start(self) -> None:
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs chat about each damaged image
                env=environment(),
            )
            atexit.register(self.close)
            assert self._child.stdout is not None  # noqa: S101 - it is PIPE
            _take(self._child.stdout, len(_READY), time.monotonic() + self._timeout_s)
        except (OSError, EOFError) as error:
            self._end()
            raise ResourceError("the process that decodes pixel data cannot be started") from error

    def _exchange(self, child: subprocess.Popen[bytes], description: dict[str, Any], content: bytes) -> bytes:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - both are PIPE
        deadline = time.monotonic() + self._timeout_s
        child.stdin.write(json.dumps({**description, "length": len(content)}).encode() + b"\n" + content)
        child.stdin.flush()
        length = int.from_bytes(_take(child.stdout, _LENGTH_BYTES, deadline), "little")
        if length > description["expected_bytes"]:
            raise EOFError("the child answers more than it was asked for")
        return _take(child.stdout, length, deadline)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()
            atexit.unregister(self.close)


def _take(pipe: IO[bytes], length: int, deadline: float) -> bytes:
    """Read exactly so many bytes before the deadline.

    Raises
    ------
    EOFError : the pipe ended. TimeoutError : the deadline passed.
    """
    taken = bytearray()
    while len(taken) < length:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(pipe.fileno(), min(_CHUNK_BYTES, length - len(taken)))
        if not piece:
            raise EOFError
        taken += piece
    return bytes(taken)


def serve(answer: Callable[[dict[str, Any], bytes], bytes]) -> None:
    """Answer requests from standard input until it ends; runs in the child.

    Signals to stop are for the parent: it finishes its image first, and then closes the pipe.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    source, target = sys.stdin.buffer, sys.stdout.buffer
    target.write(_READY)
    target.flush()
    while line := source.readline():
        _allow_cpu_s(TIMEOUT_S)
        description = json.loads(line)
        found = answer(description, source.read(description["length"]))
        target.write(len(found).to_bytes(_LENGTH_BYTES, "little") + found)
        target.flush()


def _allow_cpu_s(seconds: float) -> None:
    """Set the end of one request's computing: where the parent has died, nobody's clock would end a loop."""
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    from cxr_node.dicom.confine import confine
    from cxr_node.dicom.decoders import answer

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    leave_no_core()
    confine()
    serve(answer)
