"""A store that several machines share: whether it is there, and whether it does what the node rests on.

A share is tried property by property with the system's own calls, a bucket with the node's own requests; both are
measured with the spool's own code. What is written is taken away again.
"""

from __future__ import annotations

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from cxr_node.config import permissions
from cxr_node.config.schema import SpoolSection
from cxr_node.config.storage import AnyStore, FileStore, PosixStore, S3Store
from cxr_node.diagnose import disk
from cxr_node.diagnose.thresholds import MAX_CLOCK_DIFFERENCE_S, CheckResult, change, is_network, stop, well
from cxr_node.errors import ConfigError, CxrNodeError
from cxr_node.node.spool.disk import MIB, sync
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area, Spool

WRITES = 20
GOOD_P95_MS = 500.0
_FIRST_NFS = (4, 1)
"""Exactly-once semantics: a rename whose answer was lost is not done twice (RFC 8881, 2.10.6)."""


def reach(section: SpoolSection) -> str:
    """Say in one sentence that the store is there, and change nothing in it.

    Raises
    ------
    ConfigError, ResourceError : it is not, and why.
    """
    match section.store:
        case FileStore():
            return "in the spool's folder"
        case PosixStore(path=path):
            if not path.is_dir():
                raise ConfigError(f"{path}: is not there; mount the share, or make the folder on it")
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise ConfigError(f"{path}: is not writable for this user")
            closing = "; open to others now, the node closes it" if permissions.is_open(path, tuple(Area)) else ""
            return f"{path}: {disk.kind(path)}, writable{closing}"
        case S3Store(bucket=bucket, endpoint=endpoint):
            with _trial(section, section.store) as spool:
                spool.store.prepare()
            return f"bucket {bucket} at {endpoint or 'Amazon S3'}: a trial was put once, refused twice, and deleted"


def examine(section: SpoolSection) -> Iterator[CheckResult]:
    """Try what the node rests on; nothing for a folder of this machine."""
    try:
        match section.store:
            case PosixStore(path=path):
                reach(section)
                yield _mount(path)
                yield from _share(section, path)
            case S3Store():
                yield well("store", reach(section))
                yield from _bucket(section, section.store)
            case _:
                return
    except CxrNodeError as error:
        yield stop("store", str(error), "put it right first: the node would not start")


def _mount(path: Path) -> CheckResult:
    kind, place = disk.kind(path), path.resolve()
    figure = f"{kind} at {path}"
    if kind in ("tmpfs", "ramfs"):
        return stop("store", figure, "use a share: a power cut takes what was acknowledged")
    if not is_network(kind):
        return change("store", figure, "use a share: other machines do not see a disk of this one")
    mounts = {Path(each.mountpoint): each.opts for each in psutil.disk_partitions(all=True)}
    options = next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "").split(",")
    if "soft" in options:
        return change("store", f"{figure}, soft", "mount it hard: soft gives up in the middle of a write")
    versions = [each.removeprefix("vers=") for each in options if each.startswith("vers=")]
    if versions and tuple(int(part) for part in versions[0].split(".") if part.isdecimal()) < _FIRST_NFS:
        return change("store", f"{figure}, NFS {versions[0]}", "mount it with vers=4.1 or later")
    if kind.startswith("nfs") and not {"lookupcache=pos", "lookupcache=none"} & set(options):
        advice = "mount it with lookupcache=positive: this machine may not see for 30 s what another one has put"
        return change("store", f"{figure}, names that are missing are remembered", advice)
    return well("store", figure)


def _share(section: SpoolSection, path: Path) -> Iterator[CheckResult]:
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=path) as scratch:
            for subject, holds, figure, advice in PROPERTIES:
                yield _property(Path(scratch), subject, holds, figure, advice)
            yield well("store locks", "none is asked for")
            yield _clock(Path(scratch))
            with _trial(section, PosixStore(path=Path(scratch))) as spool:
                yield _speed(spool)
    except OSError as error:
        yield stop("store", f"{path}: {error.strerror}", "repair the share: the node could store nothing")


def _property(place: Path, subject: str, holds: Callable[[Path], bool], figure: str, advice: str) -> CheckResult:
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        if holds(folder):
            return well(subject, figure)
        return stop(subject, f"not so: {figure}", advice)
    except OSError as error:
        return stop(subject, f"{(error.strerror or 'it fails').lower()}: {figure}", advice)


def syncs_files(folder: Path) -> bool:
    """Whether fsync of a file is answered."""
    with (folder / "file").open("wb") as file:
        file.write(b"bytes")
        file.flush()
        os.fsync(file.fileno())
    return True


def syncs_folders(folder: Path) -> bool:
    """Whether fsync of a folder is answered."""
    (folder / "name").write_bytes(b"")
    sync(folder)
    return True


def links_once(folder: Path) -> bool:
    """Whether link(2) gives a second name, and refuses one that is there without touching it."""
    first, second, name = folder / "first", folder / "second", folder / "name"
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    name.hardlink_to(first)
    with suppress(FileExistsError):
        name.hardlink_to(second)
        return False
    return name.read_bytes() == b"first"


def replaces_whole(folder: Path) -> bool:
    """Whether rename(2) replaces a name, and whoever reads the old file reads it to its end."""
    name, other = folder / "name", folder / "other"
    name.write_bytes(b"old")
    other.write_bytes(b"new")
    with name.open("rb") as file:
        other.rename(name)
        return (file.read(), name.read_bytes(), other.exists()) == (b"old", b"new", False)


def keeps_times(folder: Path) -> bool:
    """Whether a file keeps a time of its own to the microsecond."""
    file, at_ns = folder / "file", 1_772_366_400_123_457_000
    file.write_bytes(b"")
    os.utime(file, ns=(at_ns, at_ns))
    return file.stat().st_mtime_ns == at_ns


_OTHER_SHARE = "use NFS 4.1 or later, or CephFS"
PROPERTIES = (
    ("store fsync of a file", syncs_files, "bytes are durable before their name is", _OTHER_SHARE),
    ("store fsync of a folder", syncs_folders, "a name is durable before the answer is", _OTHER_SHARE),
    ("store link", links_once, "of two machines that put one object, the first wins", _OTHER_SHARE),
    ("store rename", replaces_whole, "a note is replaced at once, and read whole", _OTHER_SHARE),
    ("store times", keeps_times, "an object keeps its time of receipt to the microsecond", _OTHER_SHARE),
)
"""What a share must do; each with what rests on it."""


def _clock(folder: Path) -> CheckResult:
    file, before = folder / "clock", time.time()
    file.write_bytes(b"")
    ahead_s = file.stat().st_mtime - (before + time.time()) / 2
    figure = f"{ahead_s:+.1f} s from this machine's"
    if abs(ahead_s) > MAX_CLOCK_DIFFERENCE_S:
        return change("store clock", figure, "set both by one time service: sweeps go by the age of files")
    return well("store clock", figure)


def _bucket(section: SpoolSection, store: S3Store) -> Iterator[CheckResult]:
    from cxr_node.node.spool.s3_store import S3Store as Bucket

    with _trial(section, store) as spool:
        yield _speed(spool)
        if isinstance(spool.store, Bucket) and spool.store.keeps_versions():
            advice = "switch it off, or let versions expire: what is deleted or erased stays in them"
            yield change("store versions", "the bucket keeps versions", advice)


def _speed(spool: Spool) -> CheckResult:
    taken, digests = [], []
    try:
        for _ in range(WRITES):
            part = spool.begin()
            part.write(secrets.token_bytes(MIB))
            started = time.perf_counter()
            digests.append(spool.store_object(part, datetime.now(UTC)).sha256)
            taken.append(1000 * (time.perf_counter() - started))
            part.discard()
    finally:
        for digest in digests:
            spool.delete(Area.OBJECTS, digest)
    p95 = sorted(taken)[int(0.95 * len(taken)) - 1]
    figure = f"{WRITES} x 1 MiB: p50 {statistics.median(taken):.1f} ms, p95 {p95:.1f} ms"
    if p95 > GOOD_P95_MS:
        return change(
            "store put", figure, "expect slow answers to C-STORE; look at the network and the service's disks"
        )
    return well("store put", figure)


@contextmanager
def _trial(section: SpoolSection, store: AnyStore) -> Iterator[Spool]:
    """A spool whose local part is a scratch folder, on that store."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
        yield open_spool(section.model_copy(update={"path": Path(scratch), "min_free_mib": 0, "store": store}))
