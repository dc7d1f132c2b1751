"""Which things are wrong: pure rules over one look at the node. Reads nothing, sends nothing.

A rule names its subject (a destination, a sender, a role of a certificate), what is wrong, and what to type or where
to look; never a patient. Shares are compared by exact binomial tests: a rule that looks every quarter of a minute at
ten senders would else cry at every unlucky day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cxr_node import times
from cxr_node.config.monitoring import AlertsSection

LEAST_IMAGES = 20
"""Of a sender's last day, or of a profile's last week; fewer prove nothing."""
LEAST_BEFORE = 100
"""Of a sender's days before."""
STOPPED_S = 60.0
"""A restart takes less."""
_NEGLIGIBLE = 1e-17
UNLIKELY = 1e-4
"""A share is another one where chance makes it so in one of ten thousand looks."""


class Rule(StrEnum):
    """What an alert is about: stable words for the ledger, the log and Prometheus."""

    DESTINATION_DOWN = "destination-down"
    SENDER_QUIET = "sender-quiet"
    WAITING = "waiting"
    DEAD = "dead"
    STOPPED = "stopped"
    REJECTIONS = "rejections"
    ABSTENTION = "abstention"
    DRIFT = "drift"
    DISK = "disk"
    CERTIFICATE = "certificate"
    AUDIT_BACKLOG = "audit-backlog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is wrong. Two are the same where rule and subject are."""

    rule: Rule
    subject: str
    sentence: str = field(compare=False)
    """What is wrong, and since when or how much."""
    advice: str = field(compare=False)
    """What to type, or where to look."""

    @property
    def key(self) -> str:
        """Its name in the ledger."""
        return f"{self.rule}:{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A sender's time without an image, of its usual hours alone, and its usual gap in them."""

    since: datetime
    silent_s: float
    gap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """So many of so many, in the last day and in the days before it."""

    few: int
    of: int
    few_before: int
    of_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """A profile's UNCERTAIN of a week, and the share that its own evaluation predicts."""

    few: int
    of: int
    band: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the node. What is empty is well, but for the rules in `unread`."""

    down_since: Mapping[str, datetime] = field(default_factory=dict)
    """Configured destinations that do not answer, without those on hold."""
    silences: Mapping[str, Silence] = field(default_factory=dict)
    """Senders of which enough is known."""
    image_since: datetime | None = None
    """Receipt of the oldest image that waits for the worker."""
    results_since: Mapping[str, datetime] = field(default_factory=dict)
    """By configured destination that is not on hold: since when its oldest result is due."""
    study_due_at: datetime | None = None
    """When the report of the study that has waited longest was or is due at the latest (`study.max_wait_s`)."""
    studies_failed: int = 0
    """Studies of which no report could be made."""
    dead: Mapping[str, int] = field(default_factory=dict)
    """Images that are DEAD, by reason."""
    stopped_since: Mapping[str, datetime] = field(default_factory=dict)
    """Roles of which no process runs, as far back as the process that looks knows; where there are several machines,
    also `role on machine`, where it died and did not come back."""
    silent_since: Mapping[str, datetime] = field(default_factory=dict)
    """Machines that are not heard of, though nobody stopped them."""
    rejections: Mapping[str, Shares] = field(default_factory=dict)
    abstentions: Mapping[str, Abstention] = field(default_factory=dict)
    drifts: Mapping[str, str] = field(default_factory=dict)
    """By profile: which figures of its films have changed against the site's own first ones."""
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    """By `spool`, `store` or, where there are several machines, `spool of machine`."""
    watermark_bytes: int = 0
    certificate_ends: Mapping[str, datetime] = field(default_factory=dict)
    audit_since: Mapping[str, datetime] = field(default_factory=dict)
    """By `audit` or, where there are several machines, `audit of machine`."""
    unread: frozenset[Rule] = frozenset()
    """What could not be looked at: its alerts stay as they are."""


def evaluate(snapshot: Snapshot, config: AlertsSection, now: datetime) -> set[Alert]:
    """Say all that is wrong."""
    return {alert for rule in _RULES for alert in rule(snapshot, config, now)}


def _down(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for name, since in snapshot.down_since.items():
        if (now - since).total_seconds() >= config.destination_down_s:
            yield Alert(
                rule=Rule.DESTINATION_DOWN,
                subject=name,
                sentence=f"destination {name} has not answered {_since(since, now)}",
                advice=f"`cxr-node status` shows its last error; once it answers, `cxr-node now {name}` tries at once",
            )


def _quiet(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for sender, silence in snapshot.silences.items():
        if silence.silent_s > config.quiet_gaps * silence.gap_s:
            usual = times.age(timedelta(seconds=silence.gap_s))
            yield Alert(
                rule=Rule.SENDER_QUIET,
                subject=sender,
                sentence=f"sender {sender} has sent nothing {_since(silence.since, now)}; its usual gap is {usual}",
                advice="look whether the device is in use, and at the log for a line `refused`",
            )


def _waiting(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    if snapshot.image_since is not None and (now - snapshot.image_since).total_seconds() >= config.waiting_s:
        yield Alert(
            rule=Rule.WAITING,
            subject="work",
            sentence=f"an image has waited to be analysed {_since(snapshot.image_since, now)}",
            advice="`cxr-node status` shows whether work runs; `journalctl -u cxr-node-work` says why not",
        )
    if snapshot.study_due_at is not None and (now - snapshot.study_due_at).total_seconds() >= config.waiting_s:
        yield Alert(
            rule=Rule.WAITING,
            subject="study",
            sentence=f"a study ought to be reported {_since(snapshot.study_due_at, now)}",
            advice="`cxr-node status` names the first image of it, and `cxr-node trace` says what it waits for",
        )
    for name, since in snapshot.results_since.items():
        if name not in snapshot.down_since and (now - since).total_seconds() >= config.waiting_s:
            yield Alert(
                rule=Rule.WAITING,
                subject=name,
                sentence=f"a result for {name} has waited to be sent {_since(since, now)}",
                advice=f"`cxr-node list --destination {name} --state REPORTED`, and `cxr-node trace` of one of them",
            )


def _dead(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for reason, number in snapshot.dead.items():
        if number:
            yield Alert(
                rule=Rule.DEAD,
                subject=reason,
                sentence=f"{number} {'image is' if number == 1 else 'images are'} DEAD, {reason}, until a person acts",
                advice="`cxr-node list --state DEAD`; once the cause is removed, `cxr-node retry --dead`",
            )


def _failed(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    if number := snapshot.studies_failed:
        which = "study" if number == 1 else "studies"
        yield Alert(
            rule=Rule.DEAD,
            subject="study",
            sentence=f"no report could be made of {number} {which}, until a person acts",
            advice="`cxr-node list --study FAILED`, and `cxr-node trace` of one says what to type",
        )


def _stopped(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for role, since in snapshot.stopped_since.items():
        if (now - since).total_seconds() >= STOPPED_S:
            yield Alert(
                rule=Rule.STOPPED,
                subject=role,
                sentence=f"no process of {role} has run {_since(since, now)}",
                advice=f"`systemctl status cxr-node-{role.partition(' ')[0]}`, and `cxr-node check`",
            )


def _silent(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for name, since in snapshot.silent_since.items():
        yield Alert(
            rule=Rule.STOPPED,
            subject=name,
            sentence=f"nothing has been heard of the machine {name} {_since(since, now)}",
            advice="look whether it runs and reaches the ledger; the others go on with what it had once its leases end",
        )


def _rejections(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for sender, seen in snapshot.rejections.items():
        if seen.of < LEAST_IMAGES or seen.of_before < LEAST_BEFORE:
            continue
        usual = (seen.few_before + 1) / (
            seen.of_before + 2
        )  # never 0: one rejection after none would be infinitely many
        if seen.few / seen.of >= config.rejections_factor * usual and tail(seen.few, seen.of, usual) < UNLIKELY:
            before = f"{seen.few_before} of {seen.of_before}"
            yield Alert(
                rule=Rule.REJECTIONS,
                subject=sender,
                sentence=f"{seen.few} of {seen.of} images of {sender} were rejected in a day; before: {before}",
                advice=f"`cxr-node list --state REJECTED --sender {sender} --since 1d` shows the reasons",
            )


def _abstention(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for name, seen in snapshot.abstentions.items():
        band = config.abstention_band or seen.band
        if band is None or seen.of < LEAST_IMAGES:
            continue
        low, high = band
        many = tail(seen.few, seen.of, high) < UNLIKELY
        if many or tail(seen.of - seen.few, seen.of, 1.0 - low) < UNLIKELY:
            words = f"expected are {100 * low:.0f} to {100 * high:.0f} %"
            yield Alert(
                rule=Rule.ABSTENTION,
                subject=name,
                sentence=f"{seen.few} of {seen.of} images of a week were UNCERTAIN under {name}; {words}",
                advice="`cxr-node counts --by reason,sender --since 7d`: devices, views or ages may have changed",
            )


def _disk(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    mark, mib = snapshot.watermark_bytes, 1024 * 1024
    for subject, free in snapshot.free_bytes.items():
        if free < config.disk_watermarks * mark:
            below = "once it is full" if subject == "store" else f"below {mark // mib} MiB"
            yield Alert(
                rule=Rule.DISK,
                subject=subject,
                sentence=f"the {subject} has {free // mib} MiB free; {below} every image is refused",
                advice="make room, or lower spool.retention_days",
            )


def _certificates(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for role, ends_at in snapshot.certificate_ends.items():
        if ends_at - now < timedelta(days=config.certificate_days):
            verb = "ended" if ends_at <= now else "ends"
            yield Alert(
                rule=Rule.CERTIFICATE,
                subject=role,
                sentence=f"a certificate of {role} {verb} at {ends_at:%Y-%m-%d %H:%M} UTC",
                advice="renew it; `cxr-node check` names the file",
            )


def _drift(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for profile, changed in snapshot.drifts.items():
        yield Alert(
            rule=Rule.DRIFT,
            subject=profile,
            sentence=f"the films that {profile} judges are no longer as the site's first ones were: {changed}",
            advice="`cxr-node drift` has the figures; look at films of that sender, and at what was changed there",
        )


def _audit(snapshot: Snapshot, config: AlertsSection, now: datetime) -> Iterator[Alert]:
    for subject, since in snapshot.audit_since.items():
        if (now - since).total_seconds() >= config.audit_waiting_s:
            where = subject.removeprefix("audit")
            yield Alert(
                rule=Rule.AUDIT_BACKLOG,
                subject=subject,
                sentence=f"audit messages{where} have waited for their collector {_since(since, now)}",
                advice="`cxr-node check` tries the way to the collector",
            )


_RULES: tuple[Callable[[Snapshot, AlertsSection, datetime], Iterator[Alert]], ...] = (
    *(
        _down,
        _quiet,
        _waiting,
        _dead,
        _failed,
        _stopped,
        _silent,
        _rejections,
        _abstention,
        _drift,
        _disk,
        _certificates,
        _audit,
    ),
)


def _since(at: datetime, now: datetime) -> str:
    return f"since {at:%Y-%m-%d %H:%M} UTC ({times.age(now - at)})"


def tail(successes: int, of: int, share: float) -> float:
    """Probability of so many or more successes, exact: the upper tail of a binomial distribution.

    Summed from `successes` away from the mean, where the terms only fall, until they no longer count.

    Parameters
    ----------
    share : probability of one success, in [0, 1]
    """
    if successes <= 0 or share >= 1.0:
        return 1.0
    if share <= 0.0:
        return 0.0
    if successes > of * share:
        return min(1.0, _sum(range(successes, of + 1), of, share))
    return max(0.0, 1.0 - _sum(range(successes - 1, -1, -1), of, share))


def _sum(numbers: range, of: int, share: float) -> float:
    total = 0.0
    for number in numbers:
        ways = math.lgamma(of + 1) - math.lgamma(number + 1) - math.lgamma(of - number + 1)
        term = math.exp(ways + number * math.log(share) + (of - number) * math.log1p(-share))
        total += term
        if term <= total * _NEGLIGIBLE:
            break
    return total
