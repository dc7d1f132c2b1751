"""One name per living process, and leases that last as long as the work does.

A process that was killed leaves leases behind. Its successor takes over its name, which is a lock that the
kernel opened when the process died, and frees them at once instead of waiting for their time to pass. That is seen
on its own machine only: whether another machine has died, or cannot be reached, nothing tells but the lease's end.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import FREE, DeliveryJob, Job, StudyJob
from cxr_node.node.ledger.tables import deliveries, instances, studies
from cxr_node.node.process import machine
from cxr_node.node.process.notify import Role

log = logging.getLogger(__name__)

_SUSPECT_DELAY_S = 1.0
_HUNG_AFTER_LEASES = 5
Leased = Job | StudyJob | DeliveryJob


@contextmanager
def worker_name(ledger: Ledger, spool_path: Path, role: Role) -> Iterator[str]:
    """Hold the first free name of a role on this machine, and free what its last, dead holder had leased."""
    folder, here = spool_path / "run", machine.name(spool_path)
    for number in itertools.count():
        file = os.open(folder / f"{role}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        try:
            owner = f"{here}/{role}-{number}"
            if freed := _free(ledger, owner):
                log.warning("freed leases=%d owner=%s", freed, owner)
            yield owner
        finally:
            os.close(file)
        return


def _free(ledger: Ledger, owner: str) -> int:
    """Drop the leases of a dead owner, and let each of its instances be tried alone from now on.

    The attempt of an instance that it held alone stays counted. If it held several, or a study, the culprit is
    unknown: none is blamed until the next death; but for a study, which is tried alone because it was tried before.
    All step back for a moment: were one the first again, a worker that is killed again and again by something else
    would spend all attempts on the same, innocent image.
    """
    held = instances.c.lease_owner == owner
    later: dict[str, Any] = FREE | {"not_before": ledger.now() + timedelta(seconds=_SUSPECT_DELAY_S)}
    with ledger.database.writing() as connection:
        images = int(connection.scalar(sa.select(sa.func.count()).select_from(instances).where(held)) or 0)
        reported = sa.update(studies).where(studies.c.lease_owner == owner).values(later)
        freed = connection.execute(reported).rowcount
        blamed = images + freed == 1
        suspect = later | {"alone": 1, "attempts": instances.c.attempts - int(not blamed)}
        sent = sa.update(deliveries).where(deliveries.c.lease_owner == owner).values(FREE)
        judged = sa.update(instances).where(held).values(suspect)
        return freed + sum(connection.execute(each).rowcount for each in (judged, sent))


class LeaseKeeper:
    """Extends the leases of the jobs in hand, in one thread; a job that takes too long is reported hung."""

    def __init__(
        self,
        ledger: Ledger,
        lease_s: float,
        on_hung: Callable[[], None] = lambda: None,
        hung_after_s: float | None = None,
    ) -> None:
        """`hung_after_s` is five leases unless a test says otherwise."""
        self._ledger, self._lease_s, self._on_hung = ledger, lease_s, on_hung
        self._hung_after_s = _HUNG_AFTER_LEASES * lease_s if hung_after_s is None else hung_after_s
        self._lock = threading.Lock()
        self._kept: dict[Leased, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def keeping(self, job: Leased) -> Iterator[None]:
        """Extend a lease while the block runs."""
        with self._lock:
            self._kept[job] = time.monotonic()
        try:
            yield
        finally:
            self._drop(job)

    def close(self) -> None:
        """Stop extending leases."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._lease_s / 3):
            with self._lock:
                kept = list(self._kept.items())
            for job, since in kept:
                if time.monotonic() - since >= self._hung_after_s:
                    self._drop(job)
                    self._on_hung()
                elif not self._extend(job):
                    self._drop(job)

    def _extend(self, job: Leased) -> bool:
        try:
            held = self._ledger.extend(job, self._lease_s)
        except ResourceError as error:  # the lease still has two thirds of its time
            log.warning("cannot extend lease: %s", error)
            return True
        except LedgerLostError:
            return False  # settling will raise it
        with self._lock:
            if not held and job in self._kept:  # else it was settled a moment ago
                log.warning("lost lease instance=%d owner=%s", job.instance_id, job.claim.owner)
        return held

    def _drop(self, job: Leased) -> None:
        with self._lock:
            self._kept.pop(job, None)
