"""What a process counts and the ledger cannot know, in files that the process `web` reads; nothing before `begin`.

prometheus_client's multiprocess mode, with a file per slot of a role in place of one per process number: the next
process of the role goes on counting where the last one ended. So no restart resets a part of a sum, and no files pile
up. Their blocks are reserved before they are mapped: a write into a hole of a mapped file on a full disk would end
the process (SIGBUS). Labels come from closed lists and from the configuration, and of senders so many and no more.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

log = logging.getLogger(__name__)

FOLDER = "metrics"
MAX_SENDERS = 100
OTHER = "other"
"""The sender of what came from more AE titles than have a series of their own."""
_FILE_BYTES = 256 * 1024
"""Of one slot; a hundred senders and fifty destinations with long names take half of it."""
_MAX_SLOTS = 64
_STAGE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TRANSACTION_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0)
_STUDY_S = (2.0, 5.0, 10.0, 15.0, 16.0, 17.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Close where `study.quiet_s` is over."""
_TURNAROUND_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)


class _Counters:
    """All of them; a process writes those that it counts."""

    def __init__(self, known: Collection[str]) -> None:
        self.senders = set(known)
        self.room = MAX_SENDERS
        self.received = _counter("instances_received", "Instances acknowledged, by C-STORE or by STOW-RS.", "sender")
        self.refused = _counter(
            "associations_refused", "Associations, connections, requests and instances refused.", "cause"
        )
        self.stage = _histogram("stage_seconds", "Time of one image in a stage of the analysis.", _STAGE_S, "stage")
        words = "Attempts to deliver one result object, by what came of them."
        self.attempts = _counter("delivery_attempts", words, "destination", "outcome")
        words = "Results that were too late for a destination: kept, not sent."
        self.late = _counter("results_late", words, "destination")
        words = "Write transactions of the ledger, from the wait for the lock to the end of the commit."
        self.transaction = _histogram("ledger_transaction_seconds", words, _TRANSACTION_S)
        words = "Analysed images, by profile, verdict, and cause of an UNCERTAIN."
        self.verdicts = _counter("verdicts", words, "profile", "verdict", "cause")
        self.rejections = _counter("rejections", "Images that were not analysed, by reason.", "reason")
        words = "From the receipt of an image to the first time that all destinations had accepted its results."
        self.turnaround = _histogram("turnaround_seconds", words, _TURNAROUND_S)
        self.study_reports = _counter("study_reports", "Reports of studies that were made, by verdict.", "verdict")
        words = "From the receipt of a study's last image to the report that has it."
        self.study_turnaround = _histogram("study_turnaround_seconds", words, _STUDY_S)

    def sender(self, ae_title: str) -> str:
        """The label for an AE title."""
        if ae_title not in self.senders:
            if self.room <= 0:
                return OTHER
            self.room -= 1
            self.senders.add(ae_title)
        return ae_title


_counters: _Counters | None = None
_slot: int | None = None
"""Descriptor whose lock this process holds."""


def _counter(name: str, words: str, *labels: str) -> Counter:
    from prometheus_client import Counter

    return Counter(f"cxr_node_{name}", words, labels, registry=None)


def _histogram(name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    from prometheus_client import Histogram

    return Histogram(f"cxr_node_{name}", words, labels, registry=None, buckets=buckets)


def clear(spool_path: Path) -> None:
    """Take away what earlier processes counted; for `serve`, before it starts any."""
    with suppress(OSError):
        for file in (spool_path / FOLDER).iterdir():
            file.unlink()


def begin(spool_path: Path, role: str, peers: Collection[str] = ()) -> None:
    """Count from now on, in a slot of the role; `peers` are AE titles that each have a series of their own.

    Where the disk takes no files there is a line in the log, and nothing is counted: no image waits for a metric.
    """
    global _counters, _slot  # one process, one set of files
    folder = spool_path / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _slot, name = _free_slot(folder, role)
        known = {sender for kind in ("counter", "histogram") for sender in _reserved(folder / f"{kind}_{name}.db")}
    except OSError as error:
        log.error("nothing is counted for the metrics: %s", error.strerror)
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]  # theirs
    _counters = _Counters({*peers, *known})
    _counters.room -= len(known.difference(peers))


def _free_slot(folder: Path, role: str) -> tuple[int, str]:
    """Take the first slot that no living process of the role holds."""
    for number in range(_MAX_SLOTS):
        name = f"{role}-{number}"
        file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return file, name
    raise OSError(0, f"more than {_MAX_SLOTS} processes of the role {role}")


def _reserved(file: Path) -> set[str]:
    """Give a file its blocks, and empty it if a power cut left it torn; the senders that it knows."""
    try:
        senders = set(_senders(file))
    except (ValueError, RuntimeError, struct.error, TypeError, LookupError):
        log.warning("damaged metrics are replaced file=%s", file.name)
        file.unlink()
        senders = set()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _FILE_BYTES)
    finally:
        os.close(descriptor)
    return senders


def _senders(file: Path) -> Iterator[str]:
    from prometheus_client.mmap_dict import MmapedDict

    if file.exists() and file.stat().st_size:
        for key, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]  # theirs
            labels = json.loads(key)[2]
            if "sender" in labels:
                yield labels["sender"]


def _add(metric: Counter, *labels: str) -> None:
    with suppress(OSError):  # a file that cannot grow
        metric.labels(*labels).inc()


def received(sender: str) -> None:
    """An image was acknowledged."""
    if _counters is not None:
        _add(_counters.received, _counters.sender(sender))


def refused(cause: str) -> None:
    """An association, a connection or a C-STORE was refused; `cause` is one of `rejections.Cause`."""
    if _counters is not None:
        _add(_counters.refused, cause)


def judged(profile: str, verdict: str, cause: str | None) -> None:
    """An image was analysed."""
    if _counters is not None:
        _add(_counters.verdicts, profile, verdict, cause or "")


def rejected(reason: str) -> None:
    """An image was not analysed."""
    if _counters is not None:
        _add(_counters.rejections, reason)


def attempted(destination: str, outcome: Literal["delivered", "postponed", "dead"]) -> None:
    """A delivery was tried."""
    if _counters is not None:
        _add(_counters.attempts, destination, outcome)


def too_late(destination: str) -> None:
    """A result was too late for a destination."""
    if _counters is not None:
        _add(_counters.late, destination)


def turned_around(seconds: float) -> None:
    """An image has reached all its destinations for the first time."""
    if _counters is not None:
        _counters.turnaround.observe(seconds)


def study_reported(verdict: str, seconds: float | None) -> None:
    """A report of a study was made, so long after its last image; None: an earlier one has all of its images."""
    if _counters is not None:
        _add(_counters.study_reports, verdict)
        if seconds is not None:
            _counters.study_turnaround.observe(seconds)


def stage(name: str) -> AbstractContextManager[object]:
    """Time a stage of the analysis: read, decode, examine, explain."""
    return nullcontext() if _counters is None else _counters.stage.labels(name).time()


def transaction() -> AbstractContextManager[object]:
    """Time a write transaction of the ledger."""
    return nullcontext() if _counters is None else _counters.transaction.time()
