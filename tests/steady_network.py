"""Chromium drops what it is loading when an interface of this host comes or goes (net::ERR_NETWORK_CHANGED).

So none comes or goes while a test with a browser runs, in whichever process of the run.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.processes import held


@contextmanager
def kept() -> Iterator[None]:
    """No interface changes within the block; any number of such blocks run side by side."""
    with ExitStack() as stack:
        with held("turnstile", fcntl.LOCK_EX):  # else browsers side by side would keep a change waiting for ever
            stack.enter_context(held("network", fcntl.LOCK_SH))
        yield


@contextmanager
def changing() -> Iterator[None]:
    """Interfaces may change within the block, which runs alone."""
    with held("turnstile", fcntl.LOCK_EX), held("network", fcntl.LOCK_EX):
        yield
