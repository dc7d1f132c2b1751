"""Agreement of the node's answers with what radiologists said of the same studies.

A study is one witness, however many images it has: its answer is that of its most suspicious image, as in its report.
Of a radiologist's word only present and absent count; the rest is counted as not stated. What was said on the page was
said beside the answer, and is kept apart from reports, which mostly were not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cxr_node.assurance.rates import Rate
from cxr_node.assurance.report import Report, worst
from cxr_node.assurance.report_rules import Said
from cxr_node.domain import Verdict
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.readings import PAGE, Image, Kept, Reading, ReadStudy

UNKNOWN = "not known"
"""A group of images whose header, or whose version of the node, did not tell."""


class By(StrEnum):
    """Whose word the answers are compared with."""

    REPORTS = "reports"
    PAGE = "page"


@dataclass(slots=True)
class Imported:
    """What became of reports."""

    reports: int = 0
    unmatched: int = 0
    """The ledger knows no study of theirs."""
    kept: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    """Of those that matched a study."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"reports": self.reports, "unmatched": self.unmatched, "kept": self.kept, "said": self.said}


def keep(ledger: Ledger, reports: Iterable[Report]) -> Imported:
    """Keep what reports say of studies that the ledger knows; nothing is kept of the others.

    Reports about single images of one study count as one, in which one with pneumonia speaks for all.
    """
    done = Imported()
    of_images: defaultdict[tuple[str, str], list[Report]] = defaultdict(list)
    for report in reports:
        done.reports += 1
        studies = _studies(ledger, report)
        done.unmatched += not studies
        done.said.update([report.reading.said.value] if studies else [])
        for study in sorted(studies):
            if report.is_of_image:
                of_images[study, report.source].append(report)
            else:
                done.kept[_kept(ledger, study, report)] += 1
    for (study, _), several in of_images.items():
        done.kept[_kept(ledger, study, worst(several))] += 1
    return done


def _studies(ledger: Ledger, report: Report) -> frozenset[str]:
    """By UID, else by the first number that is the Accession Number of a study here."""
    if report.uids and (found := readings.studies_of(ledger, uids=report.uids)):
        return found
    found_by_number = (readings.studies_of(ledger, accession_keys=keys) for keys in report.accession_keys)
    return next(filter(None, found_by_number), frozenset())


def _kept(ledger: Ledger, study: str, report: Report) -> Kept:
    said, rule = report.reading.said, report.reading.rule
    reading = Reading(study_instance_uid=study, source=report.source, said=said, rule=rule, said_at=report.said_at)
    return readings.keep(ledger, reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study that was read, and the image whose answer is the study's; None: none of it was analysed."""

    image: Image | None
    images: tuple[Image, ...]
    said: Said
    verdict: Verdict

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of its images, in the ledger."""
        return tuple(image.number for image in self.images)

    @property
    def is_stated(self) -> bool:
        """Whether the reader said present or absent."""
        return self.said is not Said.NOT_STATED

    @property
    def is_right(self) -> bool | None:
        """Whether the answer is the reader's; None where there is no answer, or no word to compare it with."""
        if not self.is_stated or self.verdict not in (Verdict.POSITIVE, Verdict.NEGATIVE):
            return None
        return (self.verdict is Verdict.POSITIVE) == (self.said is Said.PRESENT)


def cases(ledger: Ledger, since: datetime, until: datetime | None = None, by: By = By.REPORTS) -> list[Case]:
    """Studies of a period that were read, the first received first."""
    found = (_case(study, by) for study in readings.read_studies(ledger, since, until))
    return [case for case in found if case is not None]


def answers(
    ledger: Ledger, profile: str | None = None, studies: Container[str] | None = None
) -> list[tuple[Verdict, bool]]:
    """Verdicts, UNCERTAIN too, of analysed studies whose report says present or absent, and whether it is present.

    The first received first.

    `profile` : name and version, of the one that answered; None: of any
    `studies` : Study Instance UIDs; None: all
    """
    return [
        (case.verdict, case.said is Said.PRESENT)
        for case in cases(ledger, datetime.min.replace(tzinfo=UTC))
        if case.is_stated
        and case.image is not None
        and profile in (None, case.image.profile)
        and (studies is None or case.image.study_instance_uid in studies)
    ]


def labels(some: Iterable[Case]) -> dict[str, bool]:
    """Of the studies whose reader said present or absent: whether it is there, by Study Instance UID."""
    return {case.images[0].study_instance_uid: case.said is Said.PRESENT for case in some if case.is_stated}


def _case(study: ReadStudy, by: By) -> Case | None:
    words = [word for (source, _), word in study.said.items() if (source == PAGE) == (by is By.PAGE)]
    if not words:
        return None
    said = Said(max(words, key=lambda word: word[1])[0])
    image = deciding(study.images)
    verdict = Verdict.REJECTED if image is None else image.verdict
    return Case(image=image, images=study.images, said=said, verdict=verdict)


def deciding(images: Sequence[Image]) -> Image | None:
    """The image whose answer is that of its study: the most suspicious one, as its report has it."""
    analysed = [image for image in images if image.verdict is not Verdict.REJECTED]
    if not analysed:
        return None
    verdict = Verdict.worst(image.verdict for image in analysed)
    return max((image for image in analysed if image.verdict is verdict), key=lambda image: image.probability or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Agreement over some studies; each share with its number."""

    studies: int
    not_stated: int
    not_analysed: int
    concordance: Rate
    """Right answers among the answers."""
    ppv: Rate
    npv: Rate
    sensitivity: Rate
    """Of the answers: UNCERTAIN is in neither part of it."""
    specificity: Rate
    abstained: Rate
    """UNCERTAIN among analysed studies with a stated word."""
    prevalence: Rate
    """Present among stated words; PPV and NPV hold for it."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        shares = {name: getattr(self, name).as_json() for name in SHARES}
        return {"studies": self.studies, "not_stated": self.not_stated, "not_analysed": self.not_analysed} | shares


SHARES = {
    "concordance": "concordance of answers",
    "ppv": "PPV",
    "npv": "NPV",
    "sensitivity": "sensitivity of answers",
    "specificity": "specificity of answers",
    "abstained": "abstained (UNCERTAIN)",
    "prevalence": "reported as pneumonia",
}


def figures(some: Sequence[Case]) -> Figures:
    """Count."""
    stated = [case for case in some if case.is_stated]
    analysed = [case for case in stated if case.verdict is not Verdict.REJECTED]
    table = Counter((case.verdict, case.said) for case in analysed)
    right_positive, wrong_positive = (table[Verdict.POSITIVE, said] for said in (Said.PRESENT, Said.ABSENT))
    wrong_negative, right_negative = (table[Verdict.NEGATIVE, said] for said in (Said.PRESENT, Said.ABSENT))
    answered = right_positive + wrong_positive + right_negative + wrong_negative
    return Figures(
        studies=len(some),
        not_stated=len(some) - len(stated),
        not_analysed=len(stated) - len(analysed),
        concordance=Rate(right_positive + right_negative, answered),
        ppv=Rate(right_positive, right_positive + wrong_positive),
        npv=Rate(right_negative, right_negative + wrong_negative),
        sensitivity=Rate(right_positive, right_positive + wrong_negative),
        specificity=Rate(right_negative, right_negative + wrong_positive),
        abstained=Rate(len(analysed) - answered, len(analysed)),
        prevalence=Rate(sum(case.said is Said.PRESENT for case in stated), len(stated)),
    )


GROUPS: Mapping[str, Callable[[Image], str | None]] = {
    "sender": lambda image: image.sender.strip(),
    "age": lambda image: image.age_band,
    "view": lambda image: image.view,
    "profile": lambda image: image.profile,
}


def grouped(some: Sequence[Case], name: str) -> dict[str, Figures]:
    """Figures by one of `GROUPS`, the largest group first; studies that were not analysed are in none."""
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in some:
        if case.image is not None:
            found[GROUPS[name](case.image) or UNKNOWN].append(case)
    return {key: figures(found[key]) for key in sorted(found, key=lambda key: (-len(found[key]), key))}


def discordant(some: Sequence[Case]) -> list[Case]:
    """Studies whose answer is another than the reader's."""
    return [case for case in some if case.is_right is False]
