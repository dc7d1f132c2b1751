"""The ledger rebuilt from the spool: an object that it does not know becomes RECEIVED again.

Run by the receiver before it listens, and by `cxr-node rebuild`. It does not ask why a row is missing: the database
was deleted, or damaged and set aside (`database`), its log was lost, or the receiver died between the file's name
and the commit and acknowledged nothing. In each case judging again is harmless: the same bytes, dated by the file's
time, give the same results under the same UIDs, and an archive that has them stays as it is.

Knows no DICOM: `inspect` reads headers and comes from the `dicom` room by way of `cli`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cxr_node.domain import Origin
from cxr_node.errors import InstanceError, ResourceError
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.operator_moves import ADMITTED
from cxr_node.node.ledger.receipts import Arrival, arrive
from cxr_node.node.ledger.tables import artifacts, instance_artifacts, instances
from cxr_node.node.ledger.wake import wake
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.spool import Area, Spool

if TYPE_CHECKING:
    from cxr_node.node.receive.receiver import Inspect

log = logging.getLogger(__name__)

_BATCH = 100  # rows of one transaction
_LOOK_EVERY_S = 0.25
_ORPHAN_AFTER_S = 86_400.0
"""A result that no row names for a day belongs to no worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """Outcome of a rebuild."""

    objects: int
    """In the spool, known ones included."""
    received: int
    unreadable: int
    """Damaged so that not even the header can be read; they stay where they are."""


def rebuild(ledger: Ledger, spool: Spool, inspect: Inspect, progress: Callable[[], None] = lambda: None) -> Rebuilt:
    """Receive again what is in the spool and not in the ledger, oldest first.

    The order matters: the first image of a study says whose study it is. `progress` is called periodically.

    Raises
    ------
    ResourceError : spool or ledger cannot be used.
    """
    with _alone(spool, progress):
        stored = list(spool.digests(Area.OBJECTS))
        known = _known(ledger)
        found = sorted(_dated(spool, [digest for digest in stored if digest not in known]))
        received = unreadable = 0
        for start in range(0, len(found), _BATCH):
            arrivals = []
            for received_at, digest in found[start : start + _BATCH]:
                progress()
                try:
                    arrivals.append(_arrival(spool, inspect, digest, received_at))
                except InstanceError as error:
                    unreadable += 1
                    log.error("lost object sha256=%s cannot be received again: %s", digest[:12], error)
            with ledger.database.writing() as connection:
                received += sum(arrive(connection, arrivals, ledger.now()))
    if received:
        log.warning(
            "received again objects=%d of=%d: they were in the spool and not in the ledger; a new ledger knows neither "
            "holds nor what was set aside",
            *(received, len(stored)),
        )
        wake(ledger, spool.path, Role.WORK)
    return Rebuilt(objects=len(stored), received=received, unreadable=unreadable)


def discard_orphans(ledger: Ledger, spool: Spool) -> int:
    """Delete results that no instance has whose bytes are kept: how many.

    Left by a worker that died before it settled, or by a ledger that was lost; what is still wanted is made again.
    """
    kept = (
        sa.select(artifacts.c.content_sha256)
        .join(instance_artifacts, instance_artifacts.c.artifact_id == artifacts.c.id)
        .join(instances, instances.c.id == instance_artifacts.c.instance_id)
        .where(instances.c.purged_at.is_(None))
    )
    before = time.time() - _ORPHAN_AFTER_S
    stored = list(spool.digests(Area.RESULTS))
    with ledger.database.reading() as connection:
        wanted = set(connection.scalars(kept.distinct()))
    unwanted = [digest for digest in stored if digest not in wanted]
    orphans = [digest for digest in unwanted if spool.placed_before(Area.RESULTS, digest, before)]
    for digest in orphans:
        spool.delete(Area.RESULTS, digest)
    return len(orphans)


def _known(ledger: Ledger) -> set[str]:
    """Digests of the objects whose bytes the ledger believes to be in the spool."""
    with ledger.database.reading() as connection:
        return set(connection.scalars(sa.select(instances.c.content_sha256).where(instances.c.purged_at.is_(None))))


def _dated(spool: Spool, digests: Sequence[str]) -> Iterator[tuple[datetime, str]]:
    for digest in digests:
        if (received_at := spool.received_at(digest)) is not None:  # else retention took it a moment ago
            yield received_at, digest


def _arrival(spool: Spool, inspect: Inspect, digest: str, received_at: datetime) -> Arrival:
    origin = Origin(calling_ae_title="", peer_host="", received_at=received_at)
    admitted = spool.noted(digest, ADMITTED, Area.OBJECTS)
    admitted_at = datetime.fromisoformat(admitted) if admitted else None
    with spool.as_file(Area.OBJECTS, digest) as path:
        return Arrival(inspect(path), origin, digest, path.stat().st_size, admitted_at=admitted_at)


@contextmanager
def _alone(spool: Spool, progress: Callable[[], None]) -> Iterator[None]:
    """One process of a node at a time, to keep the order of the rows."""
    try:
        file = os.open(spool.path / "run" / "rebuild.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(f"spool: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress()
                time.sleep(_LOOK_EVERY_S)
        yield
    finally:
        os.close(file)
