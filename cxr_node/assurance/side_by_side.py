"""Two profiles on the same films: how often they agree, and, with what radiologists said, which of them is right more.

Knows no ledger: pairs of verdicts come in, figures with exact intervals go out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cxr_node.assurance.rates import Rate
from cxr_node.domain import Verdict

Answers = tuple[str, str]
"""The live profile's verdict about a film and the candidate's, in the words for programs."""
_NONE = (Verdict.INDETERMINATE, Verdict.REJECTED)


@dataclass(frozen=True, slots=True)
class Difference:
    """Of `total` films: right by the candidate alone, and by the live profile alone."""

    candidate_alone: int
    live_alone: int
    total: int

    @property
    def value(self) -> float | None:
        """Share of the candidate less share of the live profile, in [-1, 1]; None of nothing."""
        return (self.candidate_alone - self.live_alone) / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, exact, given how many films they differ about (Clopper and Pearson of the discordant pairs)."""
        differ = self.candidate_alone + self.live_alone
        if not self.total or not differ:
            return (-1.0, 1.0) if not self.total else (-self._unseen, self._unseen)
        low, high = Rate(self.candidate_alone, differ).interval
        return differ * (2.0 * low - 1.0) / self.total, differ * (2.0 * high - 1.0) / self.total

    @property
    def _unseen(self) -> float:
        """Largest share of films about which they may differ where none was seen."""
        return Rate(0, self.total).interval[1]

    def as_json(self) -> dict[str, float | int | None]:
        """Counts, value and interval."""
        low, high = self.interval
        counts = {"candidate_alone": self.candidate_alone, "live_alone": self.live_alone, "of": self.total}
        return counts | {"value": self.value, "low": round(low, 4), "high": round(high, 4)}

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        low, high = (100 * end for end in self.interval)
        alone = f"candidate alone {self.candidate_alone}, live alone {self.live_alone}, of {self.total}"
        return f"{100 * self.value:+.1f} points ({low:+.1f} to {high:+.1f}), {alone}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What two profiles said of the same films."""

    films: int
    agreement: Rate
    """The same verdict."""
    cross: Mapping[Answers, int]
    by_sender: Mapping[str, Rate]
    contradictions: Rate
    """Both answered, and one says yes and the other no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Both beside what radiologists said; a film without an answer does not count as right."""

    live: Mapping[str, Rate]
    candidate: Mapping[str, Rate]
    differences: Mapping[str, Difference]


def figures(pairs: Iterable[tuple[Answers, str]]) -> Figures:
    """Count; each pair with its sender."""
    cross: Counter[Answers] = Counter()
    films: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for said, sender in pairs:
        cross[said] += 1
        films[sender] += 1
        agreed[sender] += said[0] == said[1]
    both = {said: number for said, number in cross.items() if not set(said) & set(_NONE)}
    return Figures(
        films=films.total(),
        agreement=Rate(agreed.total(), films.total()),
        cross=dict(cross),
        by_sender={sender: Rate(agreed[sender], number) for sender, number in sorted(films.items())},
        contradictions=Rate(sum(number for said, number in both.items() if said[0] != said[1]), sum(both.values())),
    )


def beside_labels(labelled: Sequence[tuple[Answers, bool]]) -> Judged:
    """Sensitivity, specificity and share of right answers of both, and their paired differences.

    Parameters
    ----------
    labelled : answers about one film each, and whether a radiologist says that the finding is there
    """
    present = [said for said, is_there in labelled if is_there]
    absent = [said for said, is_there in labelled if not is_there]
    parts = {
        "sensitivity": [(_is_positive(live), _is_positive(other)) for live, other in present],
        "specificity": [(live == Verdict.NEGATIVE, other == Verdict.NEGATIVE) for live, other in absent],
    }
    parts["right"] = parts["sensitivity"] + parts["specificity"]
    return Judged(
        live={name: Rate(sum(live for live, _ in told), len(told)) for name, told in parts.items()},
        candidate={name: Rate(sum(other for _, other in told), len(told)) for name, told in parts.items()},
        differences={
            name: Difference(
                sum(other and not live for live, other in told),
                sum(live and not other for live, other in told),
                len(told),
            )
            for name, told in parts.items()
        },
    )


def _is_positive(word: str) -> bool:
    """Whatever a positive is called: PNEUMONIA."""
    return word not in (Verdict.NEGATIVE, *_NONE)
