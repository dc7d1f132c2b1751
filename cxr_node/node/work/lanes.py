"""The lanes of a worker: so many instances are in hand at a time, each in a thread of its own.

Knows neither what is done with an instance nor why it fails. One thread takes work in, and what a lane raises is
raised to it. What a worker died of before is done with all other lanes empty: if it dies again, nobody else is blamed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.states import Job


class Lanes:
    """Lanes, and the thread that fills them. With one lane there is no other thread than that."""

    def __init__(
        self, claim: Callable[[], Job | None], finish: Callable[[Job], None], keeper: LeaseKeeper, lanes: int
    ) -> None:
        self._claim, self._do = claim, finish
        self._keeper = keeper
        self._lanes = lanes
        self._room = threading.Semaphore(lanes)
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
        self._faults: deque[Exception] = deque()

    @property
    def failed(self) -> bool:
        """A lane's fault waits to be raised."""
        return bool(self._faults)

    def has_room(self, timeout_s: float) -> bool:
        """Wait until a lane is free."""
        if free := self._room.acquire(timeout=timeout_s):
            self._room.release()
        return free

    def take_one(self) -> bool:
        """Claim one instance and begin it; False where none is due.

        Raises
        ------
        Exception : what the claim raised, or a lane since the last call.
        """
        if self._faults:
            raise self._faults.popleft()
        job = self._claim()
        if job is None:
            return False
        if self._lanes == 1:
            self._finish(job)
        elif job.alone:
            self._finish_alone(job)
        else:
            self._room.acquire()
            self._threads.submit(self._run, job)
        return True

    def _finish(self, job: Job) -> None:
        with self._keeper.keeping(job):
            self._do(job)

    def _finish_alone(self, job: Job) -> None:
        with self._keeper.keeping(job):
            for _ in range(self._lanes):
                self._room.acquire()
            try:
                self._do(job)
            finally:
                self._room.release(self._lanes)

    def _run(self, job: Job) -> None:
        try:
            self._finish(job)
        except Exception as error:
            self._faults.append(error)
        finally:
            self._room.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the lanes finish what they have in hand."""
        self._threads.shutdown()
