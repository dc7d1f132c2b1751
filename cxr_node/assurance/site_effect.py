"""What a site's own calibration is fitted on, and what it would have changed: from the ledger's scores alone.

An answer is repeated exactly: its probability is in the ledger, and what spread or distance set aside stays aside,
whatever the thresholds. (Where a profile rules out only what is nearer than what it reports, `rule_out_max_distance`,
an answer that becomes a new NEGATIVE may still be set aside.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cxr_node.assurance.agreement import Case, Figures, deciding, figures
from cxr_node.assurance.report_rules import Said
from cxr_node.domain import AbstainReason, Verdict
from cxr_node.model.site_calibration import at_site
from cxr_node.node.ledger.readings import Image

VERDICTS = (Verdict.POSITIVE, Verdict.INDETERMINATE, Verdict.NEGATIVE)
Judge = Callable[[float], Verdict]
"""From the probability of the released profile to a verdict."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Images that one release of a profile answered, with that release's probability."""

    name: str
    versions: Mapping[str, tuple[float, float]]
    """Versions whose answers count, each with slope and intercept of the site calibration that it had."""

    def probability(self, image: Image) -> float | None:
        """Of the released profile; None where another one answered, or nobody."""
        name, _, version = (image.profile or "").rpartition(" ")
        if image.probability is None or name != self.name or version not in self.versions:
            return None
        slope, intercept = self.versions[version]
        if (slope, intercept) == (1.0, 0.0):
            return image.probability
        return at_site(image.probability, 1.0 / slope, -intercept / slope)


def is_answerable(image: Image) -> bool:
    """Neither its spread nor its distance set it aside."""
    return image.abstain_reason in (None, AbstainReason.BETWEEN_THRESHOLDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Answered images of studies that were read, one entry each: what a calibration is fitted on."""

    probability: tuple[float, ...]
    positive: tuple[bool, ...]
    answerable: tuple[bool, ...]
    groups: tuple[str, ...]
    """The study of each: one witness."""
    others: int
    """Studies left out: another profile or version answered."""


def labelled(cases: Sequence[Case], scored: Scored) -> Labelled:
    """Take the images of studies whose reader said present or absent."""
    rows: list[tuple[float, bool, bool, str]] = []
    others = 0
    for case in cases:
        if not case.is_stated:
            continue
        mine = [(image, scored.probability(image)) for image in case.images]
        there = [(image, value) for image, value in mine if value is not None]
        others += not there
        positive, group = case.said is Said.PRESENT, str(case.numbers[0])
        rows += [(value, positive, is_answerable(image), group) for image, value in there]
    probability, positives, answerable, groups = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Labelled(probability=probability, positive=positives, answerable=answerable, groups=groups, others=others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What would have been answered otherwise."""

    images: Mapping[tuple[Verdict, Verdict], int]
    """Images by verdict as it was and as it would have been."""
    before: Figures
    after: Figures
    """Agreement of the same studies; where they are those that it was fitted on, that flatters."""

    @property
    def changed(self) -> int:
        """Images with another verdict."""
        return sum(number for (was, now), number in self.images.items() if was is not now)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        table = {was.name: {now.name: self.images.get((was, now), 0) for now in VERDICTS} for was in VERDICTS}
        return {
            "images": table,
            "changed": self.changed,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
        }


def effect(studies: Sequence[Sequence[Image]], cases: Sequence[Case], scored: Scored, judge: Judge) -> Effect:
    """Repeat the answers of a period under other thresholds."""
    counts: Counter[tuple[Verdict, Verdict]] = Counter()
    for image in (image for study in studies for image in study):
        if scored.probability(image) is not None:
            counts[image.verdict, _again(image, scored, judge).verdict] += 1
    mine = [case for case in cases if case.image is not None and scored.probability(case.image) is not None]
    return Effect(
        images=counts, before=figures(mine), after=figures([_case_again(case, scored, judge) for case in mine])
    )


def _again(image: Image, scored: Scored, judge: Judge) -> Image:
    probability = scored.probability(image)
    if probability is None or not is_answerable(image):
        return image
    return replace(image, verdict=judge(probability))


def _case_again(case: Case, scored: Scored, judge: Judge) -> Case:
    images = tuple(_again(image, scored, judge) for image in case.images)
    image = deciding(images)
    return replace(case, images=images, image=image, verdict=Verdict.REJECTED if image is None else image.verdict)
