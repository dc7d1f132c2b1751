"""Quality: what was answered, how often there was no answer and why, what was refused, and how long it took.

Each share has its number and its interval of 95 %: few images say little. Counts, never a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from markupsafe import Markup

from cxr_node import times
from cxr_node.assurance import agreement, side_by_side
from cxr_node.assurance.agreement import Figures as Agreement
from cxr_node.dicom.words import names
from cxr_node.domain import Verdict
from cxr_node.errors import ConfigError
from cxr_node.node.ledger import candidates, quality
from cxr_node.node.ledger.films import REFERENCE_FILMS
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.quality import Every, Quality, Report
from cxr_node.web import access, rendering
from cxr_node.web.identity import person
from cxr_node.web.monitoring import drifts
from cxr_node.web.pages import charts
from cxr_node.web.pages.charts import Point
from cxr_node.web.pages.shares import Share
from cxr_node.web.pages.surroundings import Kept
from cxr_node.web.services import Services, services

if TYPE_CHECKING:
    from cxr_node.assurance.drift import Drift, Figure

router = APIRouter(include_in_schema=False)


class Days(IntEnum):
    """How far back."""

    WEEK = 7
    MONTH = 30
    QUARTER = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture, and the table behind it."""

    title: str
    picture: Markup
    legend: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the live profile and a candidate said of the same films."""

    candidate: str
    live: str
    due: int
    failed: int
    agreement: Share
    contradictions: Share
    words: Sequence[str]
    cross: Mapping[tuple[str, str], int]
    """By the live verdict and the candidate's."""
    senders: Mapping[str, Share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that the page shows of one period and of one sender, or of all."""

    since: datetime
    is_cut: bool
    """There are too many images: what came before `since` is left out."""
    total: Quality | None
    charts: Sequence[Chart]
    abstentions: Mapping[str, Share]
    rejections: Mapping[str, Share]
    senders: Sequence[Quality]
    beside: Beside | None
    """None: no candidate answered a film of this time."""
    agreement: Mapping[str, Agreement]
    """With reports: all studies first, then by sender and by profile; empty where no report was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """What is shown of the films since the reference."""

    seen: Drift
    figures: Sequence[Figure]
    """What has changed first; of both sides of a share the one that speaks more for a change."""

    @classmethod
    def of(cls, seen: Drift) -> Drifted:
        """Choose and order."""
        least: dict[tuple[str, str | None], Figure] = {}
        for figure in sorted(seen.figures, key=lambda each: each.p):
            least.setdefault((figure.name, figure.sender), figure)
        return cls(seen=seen, figures=tuple(least.values()))


@router.get("/quality")
def page(
    request: Request,
    person: Annotated[person.Person, Depends(access.viewer)],
    found: Annotated[Services, Depends(services)],
    days: Days = Days.MONTH,
    sender: Annotated[str | None, Query(max_length=16)] = None,
) -> Response:
    """Figures of 7, 30 or 90 days, of one sender or of all."""
    try:
        ledger = found.ledger()
    except ConfigError:
        return rendering.page(request, "not_yet.html", person=person)
    figures = _KEPT.at(ledger, days, sender or None)
    return rendering.page(
        request,
        "quality.html",
        person=person,
        days=days,
        every_days=tuple(Days),
        sender=sender or "",
        figures=figures,
        drifts={name: _told(seen) for name, seen in drifts.look(found.config, ledger).items()},
        least_films=REFERENCE_FILMS,
        share=written,
        part=part,
        seconds=_seconds,
    )


def _told(seen: Drift | int) -> Drifted | int:
    return seen if isinstance(seen, int) else Drifted.of(seen)


def _counted(ledger: Ledger, days: Days, sender: str | None) -> Figures:
    until = ledger.now()
    since = until - timedelta(days=int(days))
    by_day = quality.report(ledger, since, until, every=Every.DAY, senders=sender is not None)
    by_sender = quality.report(ledger, since, until, senders=True)
    if sender is None:
        total = next(iter(quality.report(ledger, since, until).groups), None)
    else:
        total = next((group for group in by_sender.groups if group.sender == sender), None)
    found = [group for group in by_day.groups if group.sender == sender]
    return Figures(
        since=by_day.since,
        is_cut=by_day.since > since,
        total=total,
        charts=_charts(_days(found, by_day, until), _words(found)),
        abstentions={} if total is None else _shares(total.abstain_reasons, judged(total)),
        rejections={} if total is None else _shares(total.rejections, settled(total)),
        senders=by_sender.groups,
        beside=_beside(ledger, since, sender),
        agreement=_agreement(ledger, since, sender),
    )


def _beside(ledger: Ledger, since: datetime, sender: str | None) -> Beside | None:
    known = candidates.newest(ledger)
    if known is None:
        return None
    found = candidates.compared(ledger, known, since, sender=sender)
    told = side_by_side.figures(((pair.live, pair.candidate), pair.sender) for pair in found.pairs)
    if not told.films:
        return None
    return Beside(
        candidate=found.profile,
        live=", ".join(found.live_profiles),
        due=found.due,
        failed=found.failed,
        agreement=Share(told.agreement.count, told.agreement.total),
        contradictions=Share(told.contradictions.count, told.contradictions.total),
        words=sorted({word for said in told.cross for word in said}),
        cross=told.cross,
        senders={name: Share(rate.count, rate.total) for name, rate in told.by_sender.items()},
    )


def _agreement(ledger: Ledger, since: datetime, sender: str | None) -> dict[str, Agreement]:
    found = agreement.cases(ledger, since)
    if sender is not None:
        found = [case for case in found if case.image is not None and case.image.sender.strip() == sender.strip()]
    if not found:
        return {}
    groups = {"All": agreement.figures(found)}
    for name in ("sender", "profile"):
        of = agreement.grouped(found, name)
        groups |= {f"{name} {key}": one for key, one in of.items() if len(of) > 1}
    return groups


_KEPT = Kept(_counted, 60.0, most=32)
"""Figures of a minute ago are good enough."""


def settled(group: Quality) -> int:
    """Images that were judged or refused."""
    return sum(group.verdicts.values())


def judged(group: Quality) -> int:
    """Images that were not refused."""
    return settled(group) - group.verdicts.get(Verdict.REJECTED, 0)


def _shares(counted: Mapping[str, int], total: int) -> dict[str, Share]:
    return {names.reason(word): Share(number, total) for word, number in Counter(counted).most_common()}


def _days(groups: Iterable[Quality], report: Report, until: datetime) -> list[tuple[str, Quality | None]]:
    """Each day of the period, the oldest first, also those without an image."""
    by_day = {group.begins_at.date(): group for group in groups if group.begins_at is not None}
    first, last = report.since.astimezone(UTC).date(), until.astimezone(UTC).date()
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(day.isoformat(), by_day.get(day)) for day in days]


def _words(groups: Iterable[Quality]) -> list[str]:
    """Words of verdicts: positives first, then those that all targets share."""
    common = [verdict.value for verdict in (Verdict.NEGATIVE, Verdict.INDETERMINATE, Verdict.REJECTED)]
    return [*sorted({word for group in groups for word in group.verdicts} - set(common)), *common]


Day = tuple[str, Quality | None]


def _charts(days: Sequence[Day], words: Sequence[str]) -> list[Chart]:
    return [
        _mix(days, words),
        _line(
            "No answer", "Share of judged images without an answer", days, lambda day: part(day, Verdict.INDETERMINATE)
        ),
        _line("Not analysed", "Share of images that were rejected", days, lambda day: part(day, Verdict.REJECTED)),
        _turnaround(days),
    ]


def part(group: Quality, word: str) -> Share:
    """Share of a verdict: of all for a rejection, of those that were judged for the others."""
    total = settled(group) if word == Verdict.REJECTED else judged(group)
    return Share(group.verdicts.get(word, 0), total)


def _mix(days: Sequence[Day], words: Sequence[str]) -> Chart:
    numbers = {word: [day.verdicts.get(word, 0) if day else 0 for _, day in days] for word in words}
    total = sum(map(sum, numbers.values()))
    said = ", ".join(f"{sum(column)} {word}" for word, column in numbers.items())
    return Chart(
        title="Verdicts by day",
        picture=charts.columns("Verdicts by day", f"{total} images: {said}.", _short(days), numbers),
        legend=words,
        head=("Day (UTC)", *words),
        rows=[(label, *(str(numbers[word][place]) for word in words)) for place, (label, _) in enumerate(days)],
    )


def _line(title: str, words: str, days: Sequence[Day], of: Callable[[Quality], Share]) -> Chart:
    shares = [of(day) if day is not None else None for _, day in days]
    points = [Point(each.value, each.low, each.high) if each and each.total else None for each in shares]
    said = f"{words}, by day, each with its 95 % interval."
    return Chart(
        title=title,
        picture=charts.lines(title, said, _short(days), {words: points}, lambda value: f"{100 * value:.0f} %"),
        legend=(),
        head=("Day (UTC)", words),
        rows=[(label, written(each)) for (label, _), each in zip(days, shares, strict=True)],
    )


def _turnaround(days: Sequence[Day]) -> Chart:
    found = [day.turnaround if day is not None else None for _, day in days]
    parts = {
        "median": [Point(each.p50_s) if each else None for each in found],
        "95th percentile": [Point(each.p95_s) if each else None for each in found],
    }
    said = "From the receipt of an image until every destination had accepted its results, by day."
    return Chart(
        title="Turnaround",
        picture=charts.lines("Turnaround", said, _short(days), parts, _seconds),
        legend=tuple(parts),
        head=("Day (UTC)", "Images", *parts),
        rows=[
            (label, str(each.number), _seconds(each.p50_s), _seconds(each.p95_s)) if each else (label, "0", "-", "-")
            for (label, _), each in zip(days, found, strict=True)
        ],
    )


def _short(days: Sequence[Day]) -> list[str]:
    return [label[5:] for label, _ in days]


def written(share: Share | None) -> str:
    """As it reads in a table."""
    if share is None or not share.total:
        return "-"
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.value:.1f} % ({low:.1f} to {high:.1f}), {share.count} of {share.total}"


def _seconds(value: float) -> str:
    return times.age(timedelta(seconds=value)) if value >= 60 else f"{value:.3g} s"
