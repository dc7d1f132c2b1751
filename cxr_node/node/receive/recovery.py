"""The ledger rebuilt from the spool: an object that it does not know becomes RECEIVED again.

Run by the receiver before it listens, and by `cxr-node rebuild`. It does not ask why a row is missing: the database
was deleted, or damaged and set aside (`database`), its log was lost, or the receiver died between the file's name
and the commit and acknowledged nothing. In each case judging again is harmless: the same bytes, dated by the file's
time, give the same results under the same UIDs, and an archive that has them stays as it is. Where several machines
share the ledger one of them leads, and the others wait.

Knows no DICOM: `inspect` reads headers and comes from the `dicom` room by way of `cli`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cxr_node.domain import Origin
from cxr_node.errors import InstanceError, ResourceError
from cxr_node.node.ledger import postgres
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.operator_moves import ADMITTED
from cxr_node.node.ledger.receipts import Arrival, arrive
from cxr_node.node.ledger.states import InstanceState, StudyState
from cxr_node.node.ledger.tables import artifacts, instance_artifacts, instances, studies
from cxr_node.node.ledger.wake import wake
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.spool import Area, Spool

if TYPE_CHECKING:
    from cxr_node.node.receive.receiver import Inspect

log = logging.getLogger(__name__)

_BATCH = 100  # rows of one transaction
_BATCH_S = 2.0
"""Longest time between two: images of a study come no further apart than they did, or it is reported in pieces."""
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
    with _alone(ledger, spool, progress):
        stored = list(spool.digests(Area.OBJECTS))
        known = _known(ledger)
        found = deque(sorted(_dated(spool, [digest for digest in stored if digest not in known])))
        received = unreadable = 0
        while found:
            arrivals, until = list[Arrival](), time.monotonic() + _BATCH_S
            while found and len(arrivals) < _BATCH and (time.monotonic() < until or not arrivals):
                progress()
                received_at, digest = found.popleft()
                try:
                    arrivals.append(_arrival(spool, inspect, digest, received_at))
                except InstanceError as error:
                    unreadable += 1
                    log.error("lost object sha256=%s cannot be received again: %s", digest[:12], error)
            with ledger.database.writing() as connection:
                received += sum(number is not None for number in arrive(connection, arrivals, ledger.now()))
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
    While something that was received again has no results, nothing is deleted: notes beside them say what was sent.
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
        if connection.scalar(_is_incomplete()):
            return 0
        wanted = set(connection.scalars(kept.distinct()))
    unwanted = [digest for digest in stored if digest not in wanted]
    orphans = [digest for digest in unwanted if spool.placed_before(Area.RESULTS, digest, before)]
    for digest in orphans:
        spool.delete(Area.RESULTS, digest)
    return len(orphans)


def _is_incomplete() -> sa.Select[Any]:
    """Whether something that was found in the spool has not its results yet."""
    waits = sa.exists().where(
        studies.c.study_instance_uid == instances.c.study_instance_uid, studies.c.state == StudyState.WAITING
    )
    unanswered = sa.or_(instances.c.state == InstanceState.RECEIVED, waits)
    return sa.select(sa.exists().where(instances.c.calling_ae_title == "", unanswered))


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
def _alone(ledger: Ledger, spool: Spool, progress: Callable[[], None]) -> Iterator[None]:
    """One process of a node at a time, on whichever machine, to keep the order of the rows.

    A lead who loses the server loses the lead too, and notices at the next transaction only. Until then two may lead:
    both go through the same objects in the same order, so one finds that the other was there.
    """
    with _alone_here(spool, progress):
        if not ledger.database.is_shared:
            yield
            return
        with ledger.database.apart() as driver:
            _wait(lambda: _leads(ledger, driver), progress)
            yield


def _leads(ledger: Ledger, driver: Any) -> bool:
    try:
        return postgres.may_lead(driver)
    except ledger.database.driver_error as error:
        raise ResourceError("ledger: the server went away") from error


@contextmanager
def _alone_here(spool: Spool, progress: Callable[[], None]) -> Iterator[None]:
    try:
        file = os.open(spool.path / "run" / "rebuild.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(f"spool: {error.strerror}") from error
    try:
        _wait(lambda: _locks(file), progress)
        yield
    finally:
        os.close(file)


def _locks(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(is_first: Callable[[], bool], progress: Callable[[], None]) -> None:
    while not is_first():
        progress()
        time.sleep(_LOOK_EVERY_S)
