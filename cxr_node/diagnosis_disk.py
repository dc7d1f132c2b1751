"""What figures of a disk, of SQLite and of the decoders mean for the node. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cxr_node.config import Spool
from cxr_node.diagnosis import GIB, Reading, change, stop

if TYPE_CHECKING:
    from cxr_node.dicom.samples import Trial
    from cxr_node.node.disk import Disk

_MIB = 1024**2
ASSUMED_BYTES_EACH = 24 * _MIB
"""A DX image of 10 megapixels, uncompressed, with its heat map picture; where the spool tells nothing yet."""
FEW_RADIOGRAPHS = 1000
GOOD_P95_MS = 50.0
STOP_P95_MS = 5000.0
"""Archives wait some 30 s for an answer, and four stores may be ahead in the queue."""
TOO_FAST_P50_MS = 0.3
"""1 MiB at 3 GB/s: nothing can have reached the disk."""
MAX_CLOCK_DIFFERENCE_S = 2.0
FEW_INODES = 100_000
NO_INODES = 1000
FIRST_SQLITE = (3, 35)
"""UPDATE ... RETURNING."""
_WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""First releases of their lines without the WAL-reset bug of 3.7.0 and later (sqlite.org/wal.html)."""
_NETWORK = frozenset({"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_HOST_S = frozenset({"9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"})


def disk(found: Disk, spool: Spool, *, trial: bool) -> Iterator[Reading]:
    """Judge a disk; `trial` where it is only what was at hand, for no configuration names a spool."""
    yield _kind(found, trial)
    yield _durable_write(found)
    yield _room(found, spool)
    if found.free_inodes is not None:
        yield _inodes(found.free_inodes)
    yield _time(found.clock_ahead_s)
    yield _sqlite(found)


def is_network(kind: str) -> bool:
    """Whether a file system of that type lies on another machine: SQLite's WAL does not work there."""
    return kind in _NETWORK or kind in ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs")


def _kind(found: Disk, trial: bool) -> Reading:
    subject, figure = "file system", f"{found.kind} at {found.folder}"
    if trial:
        return change(subject, f"{figure}, only at hand", "give --config FILE: then the spool's own disk is measured")
    if is_network(found.kind):
        return stop(subject, figure, "put spool.path on a local disk: SQLite's ledger does not work over a network")
    if found.kind in _MEMORY:
        return stop(subject, figure, "put spool.path on a disk: a power cut takes what was acknowledged")
    if found.kind in ("overlay", "aufs"):
        return change(
            subject, figure, "mount a volume at spool.path: the container's own layer goes with the container"
        )
    if found.kind in _HOST_S or found.kind.startswith("fuse") or found.kind == "unknown":
        return change(
            subject, figure, "put spool.path on a local disk: here fsync means what another program makes of it"
        )
    return Reading(subject=subject, figure=figure)


def _durable_write(found: Disk) -> Reading:
    p50, p95 = statistics.median(found.store_ms), _percentile(found.store_ms, 0.95)
    figure = f"{len(found.store_ms)} x 1 MiB: p50 {p50:.1f} ms, p95 {p95:.1f} ms"
    subject = "durable write"
    if p95 > STOP_P95_MS:
        return stop(subject, figure, "find out what holds this disk up: senders would give up waiting")
    if p50 < TOO_FAST_P50_MS:
        return change(subject, figure, "too fast to be true: look for cache=unsafe, or a write cache without a battery")
    if p95 > GOOD_P95_MS:
        return change(subject, figure, "expect slow answers to C-STORE; a solid state disk of its own takes a few ms")
    return Reading(subject=subject, figure=figure)


def _room(found: Disk, spool: Spool) -> Reading:
    subject, usable_bytes = "free space", found.free_bytes - spool.min_free_mib * _MIB
    free = f"{found.free_bytes / GIB:.1f} GiB free"
    if usable_bytes <= 0:
        advice = f"make room: below spool.min_free_mib ({spool.min_free_mib}) every C-STORE is answered 0xA700"
        return stop(subject, free, advice)
    if found.traffic is None:
        number = usable_bytes // ASSUMED_BYTES_EACH
        figure = f"{free}: {number} radiographs of {ASSUMED_BYTES_EACH // _MIB} MiB with their results (assumed)"
        if number < FEW_RADIOGRAPHS:
            return change(subject, figure, "give the spool a larger disk")
        return Reading(subject=subject, figure=figure)
    traffic = found.traffic
    bytes_a_day = traffic.radiographs_per_day * traffic.bytes_each
    days = (usable_bytes + traffic.kept_bytes) / bytes_a_day
    figure = (
        f"{free}: room for {days:.0f} days of {traffic.radiographs_per_day:.0f} radiographs, "
        f"{traffic.bytes_each / _MIB:.1f} MiB each with results; kept for {spool.retention_days:g}"
    )
    if days < spool.retention_days:
        return change(subject, figure, f"a larger disk, or spool.retention_days: {max(1, int(days * 0.8))}")
    return Reading(subject=subject, figure=figure)


def _inodes(free: int) -> Reading:
    if free < NO_INODES:
        return stop("inodes", f"{free} free", "make room for files: each radiograph takes about six")
    if free < FEW_INODES:
        return change("inodes", f"{free} free", "make the file system anew with more: each radiograph takes about six")
    return Reading(subject="inodes", figure=f"{free} free")


def _time(ahead_s: float) -> Reading:
    figure = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) > MAX_CLOCK_DIFFERENCE_S:
        return change("disk's clock", figure, "synchronise the clock of the machine that holds the disk")
    return Reading(subject="disk's clock", figure="that of this machine")


def _sqlite(found: Disk) -> Reading:
    figure = f"{found.sqlite_version}, journal mode {found.journal_mode}"
    version = tuple(int(part) for part in found.sqlite_version.split("."))
    if found.journal_mode != "wal":
        return stop("SQLite", figure, "put spool.path on a local disk that supports shared memory maps")
    if version < FIRST_SQLITE:
        return stop("SQLite", figure, "install Python with SQLite 3.51.3 or newer")
    if not _wal_reset_fixed(version):
        advice = "update to 3.51.3 or newer: when two processes write at once this one can, rarely, damage a ledger"
        return change("SQLite", figure, advice)
    return Reading(subject="SQLite", figure=figure)


def _wal_reset_fixed(version: tuple[int, ...]) -> bool:
    return version >= _WAL_RESET_FIXED[-1] or any(
        version[:2] == first[:2] and version >= first for first in _WAL_RESET_FIXED
    )


def decoders(trials: Sequence[Trial], missing: Sequence[str]) -> Iterator[Reading]:
    """Judge the decoders: one line where each decodes its sample, else one for each that does not."""
    for wrong in (one for one in trials if not one.right):
        advice = "install the node's libraries anew: this is offered to senders, and every image would be refused"
        yield stop("decoder", f"{wrong.name}: its sample comes out wrong", advice)
    for name in missing:
        yield change("decoder", f"{name}: not installed", "pip install python-gdcm pylibjpeg-openjpeg pillow")
    if right := [one for one in trials if one.right]:
        slowest_ms = max(one.took_ms for one in right)
        figure = f"{len(right)} transfer syntaxes decode their sample, in {slowest_ms:.1f} ms at most"
        yield Reading(subject="decoders", figure=figure)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
