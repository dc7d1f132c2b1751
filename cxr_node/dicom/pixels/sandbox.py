"""A second process in which codecs run: what one image does to a codec costs that image, not the node.

A request is a line of JSON and bytes; of the child the parent takes bytes of the expected length, or none
(reliability.md T8, T9: codecs abort, overrun, and loop on bytes that were made for it). Memory and time have limits
here, `confine` takes network, programs and files, and the child ends when its standard input does.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import json
import math
import os
import platform
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from cxr_node.errors import ResourceError
from cxr_node.process_setup import leave_no_core

# System calls by number: (x86-64, ARM64); None where the machine has no such call (asm/unistd.h).
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "io_uring_setup": (425, 425), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kill": (62, 129),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "openat2": (437, 437),
    "creat": (85, None), "truncate": (76, 45), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "mkdir": (83, None), "mkdirat": (258, 34), "chmod": (90, None),
    "fchmodat": (268, 53), "chown": (92, None), "fchownat": (260, 54), "mknod": (133, None), "mknodat": (259, 33),
    "utimensat": (280, 88),
}  # fmt: skip
_OPEN: dict[str, tuple[int | None, int | None, int]] = {"open": (2, None, 1), "openat": (257, 56, 2)}
"""The calls that open, and which of their arguments holds the flags."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table above, and AUDIT_ARCH of linux/audit.h."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # another numbering of the same calls on x86-64
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38

Instruction = tuple[int, int, int, int]


def confine() -> bool:
    """Take network, programs and writing from this process for good; False where this machine cannot."""
    column, architecture = _MACHINES.get(platform.machine(), (None, 0))
    if column is None or sys.platform != "linux":
        return False
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _program(column, architecture))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0) == 0)


def _program(column: int, architecture: int) -> list[Instruction]:
    """Write the filter: a foreign numbering is refused, then the table, then writing opens; the rest is allowed."""
    refuse: Instruction = (_RETURN, 0, 0, _REFUSE)
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), refuse]
    code += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), refuse]
    for numbers in _FORBIDDEN.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), refuse]
    for *by_machine, flags in _OPEN.values():
        if (number := by_machine[column]) is not None:
            flags_at = _ARGUMENTS + 8 * flags  # the lower half: both machines are little endian
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, flags_at), (_ANY_BIT, 0, 1, _WRITES), refuse]
            code += [(_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, _ALLOW)]


TIMEOUT_S = 60.0
"""For one image; 9 megapixels of JPEG 2000 took 1.5 s on one core."""
MAX_MEMORY_BYTES = 2 * 1024**3
"""Address space of the child: 0.16 GiB, and 10 bytes for each pixel of JPEG 2000 (measured), so 1.2 GB for the 100
million of `admission.max_pixels`. The worker's unit has 4 GiB for both."""
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.pixels.sandbox")
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

        Raises ResourceError: no child can be started on this machine.
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

    Raises EOFError: the pipe ended. TimeoutError : the deadline passed.
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
        most_s = math.ceil(time.process_time() + TIMEOUT_S)  # no clock ends a loop where the parent has died
        resource.setrlimit(resource.RLIMIT_CPU, (most_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        description = json.loads(line)
        found = answer(description, source.read(description["length"]))
        target.write(len(found).to_bytes(_LENGTH_BYTES, "little") + found)
        target.flush()


if __name__ == "__main__":
    from cxr_node.dicom.pixels.codecs import answer

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    leave_no_core()
    confine()
    serve(answer)
