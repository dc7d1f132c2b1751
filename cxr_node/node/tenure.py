"""Who works here: one name per living process, and leases that last as long as the work does.

A process that was killed leaves leases behind. Its successor takes over its name, which is a lock that the
kernel opened when the process died, and frees them at once instead of waiting for their time to pass.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.claims import FREE
from cxr_node.node.jobs import DeliveryJob, Job
from cxr_node.node.ledger import Ledger
from cxr_node.node.schema import deliveries, instances
from cxr_node.node.wakeup import Role

log = logging.getLogger(__name__)

_MAX_HOST_CHARS = 40  # a lease's owner has 64
_SUSPECT_DELAY_S = 1.0


@contextmanager
def office(ledger: Ledger, spool_path: Path, role: Role) -> Iterator[str]:
    """Hold the first free name of a role on this machine, and free what its last, dead holder had leased."""
    host = socket.gethostname()[:_MAX_HOST_CHARS]
    folder = spool_path / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in itertools.count():
        file = os.open(folder / f"{role}-{host}-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        try:
            owner = f"{host}/{role}-{number}"
            if freed := _free(ledger, owner):
                log.warning("freed leases=%d owner=%s", freed, owner)
            yield owner
        finally:
            os.close(file)
        return


def _free(ledger: Ledger, owner: str) -> int:
    """Drop the leases of a dead owner; the attempts that died with it stay counted.

    An instance steps back for a moment: were it the first again, a worker that is killed again and again by
    somebody else would spend all attempts on the same, innocent image.
    """
    later = ledger.now() + timedelta(seconds=_SUSPECT_DELAY_S)
    freed_values = ((instances, FREE | {"not_before": later}), (deliveries, FREE))
    with ledger.database.writing() as connection:
        return sum(
            connection.execute(sa.update(table).where(table.c.lease_owner == owner).values(values)).rowcount
            for table, values in freed_values
        )


@contextmanager
def kept(
    ledger: Ledger, job: Job | DeliveryJob, lease_s: float, hung_after_s: float, on_hung: Callable[[], None]
) -> Iterator[None]:
    """Extend a lease while the block runs; a block that runs longer than `hung_after_s` is reported hung."""
    done = threading.Event()

    def extend() -> None:
        waited_s = 0.0
        while not done.wait(lease_s / 3):
            waited_s += lease_s / 3
            if waited_s >= hung_after_s:
                on_hung()
                return
            try:
                if not ledger.extend(job, lease_s):
                    log.warning("lost lease row=%d owner=%s", job.claim.row_id, job.claim.owner)
                    return
            except ResourceError as error:  # the lease still has two thirds of its time
                log.warning("cannot extend lease: %s", error)
            except LedgerLostError:
                return  # who settles is told

    thread = threading.Thread(target=extend, name=f"lease-{job.claim.row_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
