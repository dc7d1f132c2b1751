"""What a process asks of those that give it memory: the C library (glibc's mallopt(3), else nothing), and Python."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from pathlib import Path

_FILTER = Path("/proc/self/coredump_filter")


def leave_no_core() -> None:
    """Forbid core files to this process and its children, whatever the shell or the service manager allows.

    The limit counts where the kernel writes a file. A handler that it pipes a core to is started all the same
    (core(5)), so the filter leaves every memory mapping out. Both are inherited by children and kept by exec.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # not Linux, or /proc is hidden: the limit stands
        _FILTER.write_text("0")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES = 256 * 1024 * 1024
_LARGEST_BYTES = 32 * 1024 * 1024
"""The most that mallopt takes: what is larger than this is asked of the system each time."""


def keep_freed() -> None:
    """Keep what one image freed for the next one.

    By itself glibc gives tens of megabytes back to the system after every image, and to be given them again costs 4 to
    10 of 70 ms of CPU (measured: 1,700 to 4,300 page faults an image; 2 with this). The most that is held stays.
    """
    _ask(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    _ask(_M_MMAP_THRESHOLD, _LARGEST_BYTES)


def share_one_heap() -> None:
    """Let all threads take from one heap: of the heaps that a process with many threads gets, most lies idle.

    The receiver's threads come and go with associations. After 200 images it held 138 MB, with this 127 MB.
    """
    _ask(_M_ARENA_MAX, 1)


def keep_what_started() -> None:
    """Leave what is there now out of every later search for garbage: modules and tables live as long as the process.

    pynetdicom searches after every 60 connections, for its associations are cycles: 60 ms each time, in which nothing
    else runs, and 1 ms with this.
    """
    gc.collect()
    gc.freeze()


def _ask(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(option, value)
