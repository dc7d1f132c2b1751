"""Studies of one to four images, some with a lateral one and some with one that comes after the report; their account.

What each destination must hold is made once more in this process, from the same bytes: nothing that the node wrote
says what is right.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from cxr_node import pipeline, study_pipeline, wiring
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.domain import NO_PRECEDENT, Origin, ResultRef
from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.ledger.states import SETTLED
from cxr_node.outcome import NotAnalysed, Outcome, Rejected, Reported, StudyCase, StudyImage
from tests import builders
from tests.chaos.accounting import held, truncated
from tests.chaos.archive import Kept
from tests.chaos.senders import Modality
from tests.node import peers

LATE, LATERAL = 0.3, 0.2
"""Shares of the studies of several images."""
_SHARED = ("PatientName", "PatientID", "StudyInstanceUID", "StudyID", "AccessionNumber")
_AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Images as a modality has them."""

    uid: str
    parts: tuple[tuple[Path, ...], ...]
    """What is sent at once; and what is sent when the report of that has come."""

    @property
    def files(self) -> list[Path]:
        """All of it."""
        return [file for part in self.parts for file in part]


def draw(modality: Modality, numbers: Iterable[int], chance: random.Random) -> Iterator[Study]:
    """Write studies of these numbers to files."""
    for number in numbers:
        of_study = builders.radiograph(number)
        shared = {keyword: of_study[keyword].value for keyword in _SHARED}
        count = chance.randint(1, 4)
        is_late, is_lateral = (count > 1 and chance.random() < share for share in (LATE, LATERAL))
        files = []
        for place in range(count):
            view = {"ViewPosition": "LL", "ViewCodeSequence": None} if is_lateral and place == 1 else {}
            files += modality.take(10 * number + place, InstanceNumber=str(place + 1), **shared, **view)
        first = len(files) - is_late
        parts = tuple(tuple(part) for part in (files[:first], files[first:]) if part)
        yield Study(uid=str(of_study.StudyInstanceUID), parts=parts)


class Oracle:
    """What a node of that configuration makes of a study, without a spool, a ledger, or anything that may die."""

    def __init__(self, config: Path) -> None:
        self._config: Config = loader.load(config)

    @cached_property
    def _classifier(self) -> pipeline.Classifier:
        return wiring.classifier(self._config)

    def objects(self, study: Study) -> set[str]:
        """SOP Instance UIDs of all reports and pictures."""
        outcomes: list[tuple[bytes, Outcome]] = []
        earlier: list[tuple[ResultRef, ...]] = []
        expected: set[str] = set()
        for part in study.parts:
            outcomes += [(content, self._judge(content)) for content in (file.read_bytes() for file in part)]
            case = _case(outcomes, earlier)
            report = study_pipeline.report_study(case, self._config)
            assert report is not None
            expected |= {each.sop_instance_uid for each in report.artifacts}
            earlier.append(tuple(choice.ref for each in report.artifacts for choice in each.sop_class_choices))
        judged = [outcome for _, outcome in outcomes if isinstance(outcome, Reported)]
        return expected | {each.sop_instance_uid for outcome in judged for each in outcome.pictures}

    def _judge(self, content: bytes) -> Outcome:
        return pipeline.process(content, _origin(), self._classifier, self._config, NO_PRECEDENT)


def _origin() -> Origin:
    return Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=_AT)


def _case(outcomes: Sequence[tuple[bytes, Outcome]], earlier: Sequence[tuple[ResultRef, ...]]) -> StudyCase:
    images: list[StudyImage] = []
    others: list[NotAnalysed] = []
    for content, outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.listed is not None
            others.append(outcome.listed)
        else:
            assert outcome.judgement is not None
            images.append(StudyImage(content=content, origin=_origin(), judgement=outcome.judgement))
    return StudyCase(images=tuple(images), others=tuple(others), earlier_reports=tuple(earlier))


def reported(archives: Sequence[Sequence[Kept]]) -> set[str]:
    """Studies of which every destination has a report."""
    return set.intersection(*({one.study_instance_uid for one in kept if _is_report(one)} for kept in archives))


def _is_report(one: Kept) -> bool:
    return one.sop_class_uid == peers.SOP_CLASS[peers.ResultKind.REPORT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """Studies that were sent, and what every destination holds of them."""

    studies: int
    images: int
    """Different instances answered with 0x0000."""
    reports: int
    """At each destination."""
    objects: int
    """At each destination; as many are expected, where nothing is lost or doubled."""
    torn: int
    """Studies whose images came further apart than `quiet_s`, for the receiver was dead: they may have one report more.
    """
    lost: int
    """Images not in the ledger or not settled, and expected objects that a destination lacks."""
    doubled: int
    """Images with two rows, objects that nobody expects, and objects with two contents."""
    truncated: int
    """As in `tests.chaos.accounting`."""

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing truncated."""
        return not (self.lost or self.doubled or self.truncated)

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def settle(
    spool: Path,
    modality: Modality,
    studies: Sequence[Study],
    expected: Callable[[Study], set[str]],
    archives: Sequence[Sequence[Kept]],
    quiet_s: float,
) -> Accounting:
    """Draw up the account of a node at rest.

    Parameters
    ----------
    spool : folder of the node
    modality : whose images were sent
    studies : what they belong to
    expected : makes the SOP Instance UIDs that a destination must hold of a study
    archives : what each destination has kept
    quiet_s : `study.quiet_s`
    """
    node = held(spool)
    lost = doubled = torn = 0
    seen = Counter(row.sop_instance_uid for row in node.rows)
    settled = {row.sop_instance_uid for row in node.rows if row.state in SETTLED}
    lost += len(set(modality.acknowledged) - settled)
    doubled += sum(count > 1 for count in seen.values())
    came = {row.sop_instance_uid: row for row in node.rows}
    at_each = [_by_study(kept) for kept in archives]
    for study in studies:
        of_study = [one.get(study.uid, set()) for one in at_each]
        if _is_torn(study, modality, came, quiet_s):
            torn += 1
            lost += len(set.union(*of_study) - set.intersection(*of_study)) + (not of_study[0])
            continue
        right = expected(study)
        lost += sum(len(right - each) for each in of_study)
        doubled += sum(len(each - right) for each in of_study)
    doubled += _of_two_contents(archives)
    return Accounting(
        studies=len(studies),
        images=len(set(modality.acknowledged)),
        reports=len({one.sop_instance_uid for one in archives[0] if _is_report(one)}),
        objects=len({one.sop_instance_uid for one in archives[0]}),
        torn=torn,
        lost=lost,
        doubled=doubled,
        truncated=truncated(node, modality.sources, archives),
    )


def _by_study(kept: Sequence[Kept]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for one in kept:
        found[one.study_instance_uid].add(one.sop_instance_uid)
    return found


def _is_torn(study: Study, modality: Modality, came: Mapping[str, InstanceRow], quiet_s: float) -> bool:
    at = sorted(came[modality.uid(file)].received_at for file in study.parts[0] if modality.uid(file) in came)
    return any(later - earlier > timedelta(seconds=quiet_s) for earlier, later in pairwise(at))


def _of_two_contents(archives: Sequence[Sequence[Kept]]) -> int:
    contents: dict[str, set[str]] = defaultdict(set)
    for kept in archives:
        for one in kept:
            contents[one.sop_instance_uid].add(one.sha256)
    return sum(len(digests) > 1 for digests in contents.values())
