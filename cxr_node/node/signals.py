"""Signals of the processes that serve: one thread waits for them, and no handler ever runs.

A signal with a handler interrupts whichever thread the kernel picks, and the handler's frame goes on a stack that this
thread has at that moment: a library's own, perhaps, too small for the registers of a processor with AMX (11 KiB), or
gone already, as OpenVINO leaves it (`model.openvino_runtime`). So SIGTERM, SIGINT and SIGHUP are blocked in every
thread, and one thread takes them from the kernel with sigwait(3): no frame, and no stack that could be wrong.

Knows nothing of DICOM.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cxr_node.node import logfile

STOP = (signal.SIGTERM, signal.SIGINT)
HELD = frozenset({*STOP, signal.SIGHUP})


@contextmanager
def held() -> Iterator[None]:
    """Block the signals from here on, for `stop_event`; where the start fails, the process is left as it was.

    For the main thread, before any library starts threads: they inherit what is blocked. So do programs that are
    started later (`service` gives its own a free mask).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def stop_event(
    on_stop: Callable[[], None] | None = None, on_hangup: Callable[[], None] | None = None
) -> threading.Event:
    """Event set by SIGTERM and SIGINT, also by one that came while they were `held`; to the end of the process.

    `on_stop` may ring a bell that the process sleeps on.

    Parameters
    ----------
    on_hangup : what SIGHUP does; without it log files that were moved away are opened again, nothing else
    """
    hang_up = on_hangup or logfile.on_hangup()
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    stop = threading.Event()

    def wait() -> None:
        while True:
            number = signal.sigwait(HELD)
            if number == signal.SIGHUP:
                hang_up()
                continue
            stop.set()
            if on_stop is not None:
                on_stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
