"""What lies around the ledger: disk, certificates, profiles. Dear to look at, so each look is kept for a time."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Generic, TypeVar

from cxr_node import resources, wiring
from cxr_node.config import permissions
from cxr_node.config.http import AnyTls
from cxr_node.config.schema import Config
from cxr_node.config.storage import PosixStore
from cxr_node.dicom.words.rounding import threshold_text
from cxr_node.errors import ConfigError, ModelError
from cxr_node.node.ledger.machines import MachineState

if TYPE_CHECKING:
    from cxr_node.model.profile import Profile
    from cxr_node.node.ledger.promotions import Promotion
    from cxr_node.web.services import Services

Of = TypeVar("Of")
Seen = TypeVar("Seen")
SOON_DAYS = 30
_KEPT = 16


class Kept(Generic[Of, Seen]):
    """The last looks at something, as long as they are young enough; by one at a time. Threads may share it."""

    def __init__(self, look: Callable[Concatenate[Of, ...], Seen], for_s: float, most: int = _KEPT) -> None:
        self._look, self._for_s, self._most = look, for_s, most
        self._lock = threading.Lock()
        self._seen: dict[tuple[Hashable, ...], tuple[Of, float, Seen]] = {}

    def at(self, what: Of, *how: Hashable) -> Seen:
        """What is there, as it was a moment ago; `how` are further arguments of the look."""
        key = id(what), *how
        with self._lock:
            found = self._seen.get(key)
            if found is None or time.monotonic() - found[1] > self._for_s:
                if len(self._seen) >= self._most:
                    self._seen.clear()
                found = self._seen[key] = (what, time.monotonic(), self._look(what, *how))
            return found[2]

    def forget(self, what: Of, *how: Hashable) -> None:
        """Somebody changed it: look again."""
        with self._lock:
            self._seen.pop((id(what), *how), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system of a spool, or of the share that holds what is stored."""

    free_mib: int
    total_mib: int
    min_free_mib: int
    """The watermark: below it every C-STORE is answered 0xA700."""
    is_share: bool = False
    """It has no watermark: what is below it is shown all the same."""

    @property
    def is_full(self) -> bool:
        """Nothing is received."""
        return self.free_mib < self.min_free_mib

    @property
    def is_nearly_full(self) -> bool:
        """Twice the watermark is left, or less."""
        return self.free_mib < 2 * self.min_free_mib


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A file that ends one day."""

    subject: str
    """Where the configuration names it."""
    ends_at: datetime | None
    """None: it does not say, or it cannot be read."""
    failure: str | None = None

    @property
    def days(self) -> int | None:
        """Whole days left; negative where it has ended."""
        return None if self.ends_at is None else (self.ends_at - datetime.now(UTC)).days

    @property
    def level(self) -> str:
        """What it means: good, warn or bad."""
        if self.failure is not None:
            return "warn"
        if self.days is None or self.days >= SOON_DAYS:
            return "good"
        return "warn" if self.days >= 0 else "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A profile, in words."""

    name: str
    version: str = ""
    folder: Path | None = None
    finding: str = ""
    ages: str = ""
    thresholds: tuple[str, ...] = ()
    sha256: str = ""
    calibration: str = ""
    failure: str | None = None

    @property
    def card(self) -> Path | None:
        """Its model card, where there is one."""
        card = None if self.folder is None else self.folder / "MODEL_CARD.md"
        return card if card is not None and card.is_file() else None


def disks(config: Config, others: Sequence[MachineState]) -> dict[str, Disk | None]:
    """The file systems that images need, by name; None of one that is not there.

    Parameters
    ----------
    others : all machines, where several are one node; each told of its own spool
    """
    if others:
        found = {f"Spool of {each.name}": _told(config, each) for each in others}
    else:
        found = {"Disk of the spool": _disk(config, config.spool.path)}
    store = config.spool.store
    share = {"Share": _disk(config, store.path, is_share=True)} if isinstance(store, PosixStore) else {}
    return found | share


def _disk(config: Config, path: Path, *, is_share: bool = False) -> Disk | None:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return _in_mib(config, usage.free, usage.total, is_share=is_share)


def _told(config: Config, machine: MachineState) -> Disk | None:
    return None if machine.disk is None else _in_mib(config, machine.disk.free_bytes, machine.disk.total_bytes)


def _in_mib(config: Config, free_bytes: int, total_bytes: int, *, is_share: bool = False) -> Disk:
    mib = 1024 * 1024
    return Disk(
        free_mib=free_bytes // mib,
        total_mib=total_bytes // mib,
        min_free_mib=config.spool.min_free_mib,
        is_share=is_share,
    )


def _certificates(config: Config) -> Sequence[Dated]:
    return [each for subject, path, is_list in _files(config) for each in _dated(subject, path, is_list)]


def _files(config: Config) -> Iterator[tuple[str, Path, bool]]:
    sides: dict[str, AnyTls | None] = {"listen.tls": config.listen.tls}
    sides |= {f"{to.name}.tls": to.tls_files for to in config.destinations}
    sides |= {"audit.syslog.tls": config.audit.syslog.tls if config.audit.syslog is not None else None}
    seen = set[Path]()
    for subject, side in sides.items():
        if side is not None:
            files = {"certificate": side.certificate, "CA": side.ca, "revocation list": side.crl}
            for what, path in files.items():
                if path is not None and path not in seen:
                    seen.add(path)
                    yield f"{subject} {what}", path, what == "revocation list"
    if config.web is not None and config.web.tls is not None and config.web.tls.certificate not in seen:
        yield "web.tls certificate", config.web.tls.certificate, False


def _dated(subject: str, path: Path, is_list: bool) -> Iterator[Dated]:
    from cxr_node.diagnose import certificates  # cryptography: only where there is TLS

    try:
        there = permissions.place(path)
        if is_list:
            yield Dated(subject=subject, ends_at=certificates.crl_ends_at(there))
            return
        ends_at = min(each.ends_at for each in certificates.read(there))
        yield Dated(subject=subject, ends_at=ends_at)
    except ConfigError as error:
        yield Dated(subject=subject, ends_at=None, failure=str(error))


def _profiles(config: Config) -> Sequence[Judge]:
    beside = [] if config.model.candidate is None else [config.model.candidate]
    return [_judge(name) for name in (config.model.profile, *config.model.others, *beside)]


def _judge(name: str) -> Judge:
    from cxr_node.model import profile

    try:
        return _described(profile.load(resources.profile_folder(name)))
    except (ConfigError, ModelError) as error:
        return Judge(name=name, failure=str(error))


def _described(found: Profile) -> Judge:
    point, (youngest, oldest) = found.operating_point, found.population.age_years
    low, high = (threshold_text(value, point) for value in (point.rule_out_below, point.report_at))
    words = [f"{point.label} is reported from {high} on, and ruled out below {low}"]
    words.append(f"no answer between them, nor where predictions differ by more than {point.max_spread:g}")
    if point.max_distance is not None:
        words.append(f"no answer beyond a distance of {point.max_distance:g} from the training data")
    if point.rule_out_max_distance is not None:
        words.append(f"nothing ruled out beyond {point.rule_out_max_distance:g}")
    return Judge(
        name=found.name,
        version=found.version,
        folder=found.folder,
        finding=found.target.finding,
        ages=f"{youngest:g} to {oldest:g} years",
        thresholds=tuple(words),
        sha256=found.weights_sha256,
        calibration=found.calibration,
    )


def _promotion(found: Services) -> Promotion | None:
    return None if found.config.model.candidate is None else wiring.promotion(found.config, found.ledger())


CERTIFICATES = Kept(_certificates, 60.0)
PROMOTION = Kept(_promotion, 10.0)
PROFILES = Kept(_profiles, 60.0)
