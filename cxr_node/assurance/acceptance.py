"""What a site accepts when it accepts a node: the last studies, counted; what is right, what is not, what is not known.

Every share has its number and its exact interval. Nothing here decides: a person signs.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cxr_node import __version__
from cxr_node.assurance import agreement, phantom_record
from cxr_node.assurance.predictive import Reading
from cxr_node.assurance.rates import interval
from cxr_node.config.schema import Config
from cxr_node.dicom.words import names
from cxr_node.domain import Reason, Verdict
from cxr_node.errors import ResourceError
from cxr_node.model.profile import Profile
from cxr_node.node.ledger import films, last_studies
from cxr_node.node.ledger.last_studies import LastStudies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeliveryState, InstanceState, OwnReason

SIX_MONTHS = 183.0
LEAST_READ = 100
_UNREADABLE = frozenset({Reason.UNREADABLE_HEADER, Reason.UNREADABLE_PIXELS, Reason.IMPLAUSIBLE_PIXELS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, with the exact 95 % interval."""

    few: int
    of: int
    low: float
    high: float

    @classmethod
    def exact(cls, few: int, of: int) -> Share:
        """By Clopper and Pearson."""
        low, high = interval(few, of)
        return cls(few=few, of=of, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnaround:
    """Receipt of an image to the last destination's acceptance, in seconds."""

    images: int
    median_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLine:
    """One configured profile."""

    name: str
    weights_sha256: str
    calibration: str
    thresholds: tuple[float, float]
    constancy: str
    """What the last phantom said; "" where none was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One look at the node; all that the page says."""

    made_at: datetime
    installation: str
    version: str
    config_sha256: str
    asked_studies: int
    studies: int
    images: int
    first_at: datetime | None
    last_at: datetime | None
    faults: dict[str, int]
    """Technical faults by kind, those that did not occur with 0."""
    verdicts: dict[str, Share]
    """Of the judged images."""
    refused: dict[str, Share]
    """Of all images, by reason."""
    refused_by_sender: dict[str, Share]
    no_answer: dict[str, Share]
    """Of the judged images, by reason."""
    turnaround: Turnaround | None
    agreement: dict[str, Share]
    """By name; empty where nobody has read."""
    profiles: tuple[ProfileLine, ...]
    unknown_weights: int
    """Images that were judged by other weights than those configured now."""
    to_check: tuple[str, ...]
    """What the site must still do, in sentences."""


def look(
    ledger: Ledger, config: Config, profiles: Sequence[Profile], number: int, read: Iterable[Reading] | None = None
) -> Acceptance:
    """Count the last so many studies. `read` : what radiologists said; None: what the ledger knows of these studies."""
    seen = last_studies.look(ledger, number)
    told = list(agreement.answers(ledger, studies=seen.uids) if read is None else read)
    settled = [image for image in seen.images if image.verdict is not None]
    judged = [image for image in settled if image.verdict != Verdict.REJECTED]
    refused = [image for image in settled if image.verdict == Verdict.REJECTED]
    lines = _profiles(config, profiles)
    known = {each.weights_sha256 for each in profiles}
    by_sender = Counter(image.sender for image in settled)
    times = [image.received_at for image in seen.images]
    return Acceptance(
        made_at=ledger.now(),
        installation=config.results.installation_id,
        version=__version__,
        config_sha256=config.answer_sha256,
        asked_studies=number,
        studies=seen.studies,
        images=len(seen.images),
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        faults=faults(seen),
        verdicts=_shares((image.verdict or "" for image in judged), len(judged)),
        refused=_shares((names.reason(image.reason) for image in refused), len(settled)),
        refused_by_sender={
            sender: Share.exact(few, by_sender[sender])
            for sender, few in Counter(image.sender for image in refused).most_common()
        },
        no_answer=_shares((names.reason(each.abstain_reason) for each in judged if each.abstain_reason), len(judged)),
        turnaround=_turnaround(seen),
        agreement=_agreement(told),
        profiles=lines,
        unknown_weights=sum(image.weights_sha256 not in known for image in judged if image.weights_sha256),
        to_check=(*_missing(seen, number, told, lines), *_to_check(ledger, config, profiles)),
    )


NO_FAULT = frozenset({"images that are not settled yet", "results taken at a second or later attempt"})
"""Of the kinds below: told, and no fault by themselves."""


def faults(seen: LastStudies) -> dict[str, int]:
    """Count technical faults by kind."""
    dead = sum(image.state is InstanceState.DEAD for image in seen.images)
    unread = sum(image.reason in _UNREADABLE for image in seen.images if image.verdict == Verdict.REJECTED)
    open_ = sum(image.state in (InstanceState.RECEIVED, InstanceState.REPORTED) for image in seen.images)
    sent = Counter(each.state for each in seen.deliveries)
    late = sum(each.reason == OwnReason.TOO_LATE for each in seen.deliveries)
    again = sum(each.attempts > 1 for each in seen.deliveries if each.state is DeliveryState.DELIVERED)
    return {
        "images that are DEAD": dead,
        "studies without a report (FAILED)": seen.failed,
        "results that a destination did not take (DEAD)": sent[DeliveryState.DEAD],
        "results that came too late": late,
        "images that could not be read": unread,
        "images that are not settled yet": open_,
        "results taken at a second or later attempt": again,
    }


def _shares(words: Iterable[str], of: int) -> dict[str, Share]:
    return {word: Share.exact(few, of) for word, few in Counter(words).most_common()}


def _turnaround(seen: LastStudies) -> Turnaround | None:
    took = sorted(
        max(0.0, (each.delivered_at - each.received_at).total_seconds())
        for each in seen.images
        if each.delivered_at is not None and each.verdict != Verdict.REJECTED
    )
    if not took:
        return None
    cuts = statistics.quantiles(took, n=20, method="inclusive") if len(took) > 1 else took * 19
    return Turnaround(images=len(took), median_s=cuts[9], p95_s=cuts[18], longest_s=took[-1])


def _agreement(read: Sequence[Reading]) -> dict[str, Share]:
    if not read:
        return {}
    right = {
        verdict: [is_there is (verdict is Verdict.POSITIVE) for said, is_there in read if said is verdict]
        for verdict in (Verdict.POSITIVE, Verdict.NEGATIVE)
    }
    answered = [*right[Verdict.POSITIVE], *right[Verdict.NEGATIVE]]
    return {
        "answers that agree": Share.exact(sum(answered), len(answered)),
        "positives that were right (PPV)": Share.exact(sum(right[Verdict.POSITIVE]), len(right[Verdict.POSITIVE])),
        "negatives that were right (NPV)": Share.exact(sum(right[Verdict.NEGATIVE]), len(right[Verdict.NEGATIVE])),
        "read films without an answer": Share.exact(len(read) - len(answered), len(read)),
    }


def _profiles(config: Config, profiles: Sequence[Profile]) -> tuple[ProfileLine, ...]:
    try:
        last = {each.answerer: each for each in phantom_record.last(config.spool.path)}
    except ResourceError:
        last = {}
    found = []
    for each in profiles:
        said = last.get((f"{each.name} {each.version}", each.calibration_sha256))
        words = "" if said is None else f"{said.fault or 'as expected'}, {said.at[:16].replace('T', ' ')} UTC"
        point = each.operating_point
        found.append(
            ProfileLine(
                name=f"{each.name} {each.version}",
                weights_sha256=each.weights_sha256,
                calibration=each.calibration,
                thresholds=(point.rule_out_below, point.report_at),
                constancy=words,
            )
        )
    return tuple(found)


def _missing(seen: LastStudies, number: int, read: Sequence[Reading], lines: Sequence[ProfileLine]) -> Iterator[str]:
    """What the figures of the page lack."""
    if seen.studies < number:
        yield f"Only {seen.studies} of {number} studies have come: repeat this when there are more."
    if len(read) < LEAST_READ:
        yield f"{len(read)} films were read by a radiologist: fewer than {LEAST_READ} say little of agreement."
    if any(line.constancy == "" for line in lines):
        yield "No phantom was sent: run `cxr-node constancy`, and each day."


def _to_check(ledger: Ledger, config: Config, profiles: Sequence[Profile]) -> Iterator[str]:
    """What the node knows that it does not do, and last what no figure shows."""
    if any(films.reference(ledger, each.weights_sha256) is None for each in profiles):
        yield "The reference for drift is not there yet: it needs the first 2,000 films of each profile."
    if config.audit.enabled is False or config.audit.keep_days < SIX_MONTHS:
        yield "The audit trail is off, or is kept for less than six months (audit.keep_days)."
    if not any(to.is_asked_to_commit for to in config.destinations):
        yield "No destination is asked for Storage Commitment: look in the archive whether the results are there."
    yield "Open one result of each verdict at a reading workstation: text, picture and patient are right."
    yield "Each room that sends has sent, and each age group that is to be judged has been."
    yield "Whoever reads knows what UNCERTAIN and not analysed mean, and that no answer is a finding."
