"""What a profile's answers are worth: rates with intervals, verdicts, subgroups.

Knows no network and no file: outcomes in, figures as bootstrap.json keeps them out. Predictive values, accuracy and F1
hold for the data's own share of positives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import Target, Verdict
from cxr_node.training.data.images import TAG_COLUMNS
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import Bools, Floats, Interval

RATE_NAMES = {
    "auc": "AUC (area under the ROC curve)",
    "auprc": "AUPRC (average precision)",
    "accuracy_at_0.5": "accuracy at 0.5",
    "balanced_accuracy_at_0.5": "balanced accuracy at 0.5",
    "sensitivity_at_0.5": "sensitivity at 0.5",
    "specificity_at_0.5": "specificity at 0.5",
    "positive_predictive_value_at_0.5": "positive predictive value at 0.5",
    "negative_predictive_value_at_0.5": "negative predictive value at 0.5",
    "f1_at_0.5": "F1 at 0.5",
    "answered": "answered (not UNCERTAIN)",
    "answered_of_positives": "answered, of positives",
    "answered_of_negatives": "answered, of negatives",
    "rightly_answered": "rightly answered, of all images",
    "accuracy_of_answered": "accuracy of the answers",
    "balanced_accuracy_of_answered": "balanced accuracy of the answers",
    "sensitivity_of_answered": "sensitivity of the answers",
    "specificity_of_answered": "specificity of the answers",
    "positive_predictive_value": "positive predictive value of the answers",
    "negative_predictive_value": "negative predictive value of the answers",
    "f1_of_answered": "F1 of the answers",
    "calibration_error": "expected calibration error (15 bins)",
    "brier": "Brier score",
    "log_loss": "log loss (nats)",
    "risk_coverage_area": "area under risk-coverage (AURC)",
}
SUBGROUP_NAMES = {
    "auc": "AUC",
    "sensitivity_at_0.5": "sensitivity at 0.5",
    "specificity_at_0.5": "specificity at 0.5",
    "answered": "answered",
    "accuracy_of_answered": "right answers",
}
HALF = 0.5
"""Where a classifier without thresholds of its own would cut."""
MOST_VALUES = 12
"""Values of one column that are shown, the most frequent first."""
AGE_BANDS = (1, 2, 3, 4, 5, 6, 18, 40, 60, 80)
"""First years of age bands: single years where the pediatric profile lives, then broader ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """One row per image: what is true, what the profile says."""

    positive: Bools
    groups: NDArray[np.str_]
    probability: Floats
    verdict: NDArray[np.str_]
    answered: Bools

    def taken(self, rows: Bools) -> Outcomes:
        """Some of the images."""
        return Outcomes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def said(self, verdict: Verdict) -> Bools:
        """Which images got a verdict."""
        return np.asarray(self.verdict == str(verdict))

    @property
    def called(self) -> Bools:
        """Probability of 0.5 or more."""
        return self.probability >= HALF

    @property
    def right(self) -> Bools:
        """Answered, and as it is."""
        return np.where(self.positive, self.said(Verdict.POSITIVE), self.said(Verdict.NEGATIVE))


SHARES: Mapping[str, Callable[[Outcomes], tuple[Bools, Bools]]] = {
    "accuracy_at_0.5": lambda o: (o.called == o.positive, np.ones_like(o.positive)),
    "sensitivity_at_0.5": lambda o: (o.called, o.positive),
    "specificity_at_0.5": lambda o: (~o.called, ~o.positive),
    "positive_predictive_value_at_0.5": lambda o: (o.positive, o.called),
    "negative_predictive_value_at_0.5": lambda o: (~o.positive, ~o.called),
    "answered": lambda o: (o.answered, np.ones_like(o.answered)),
    "answered_of_positives": lambda o: (o.answered, o.positive),
    "answered_of_negatives": lambda o: (o.answered, ~o.positive),
    "rightly_answered": lambda o: (o.right, np.ones_like(o.positive)),
    "accuracy_of_answered": lambda o: (o.right, o.answered),
    "sensitivity_of_answered": lambda o: (o.right, o.positive & o.answered),
    "specificity_of_answered": lambda o: (o.right, ~o.positive & o.answered),
    "positive_predictive_value": lambda o: (o.positive, o.said(Verdict.POSITIVE)),
    "negative_predictive_value": lambda o: (~o.positive, o.said(Verdict.NEGATIVE)),
}
"""Name -> which images count, among which."""

FIGURES: Mapping[str, Callable[[Outcomes, Floats], Floats]] = {
    "auc": lambda o, w: bootstrap.aucs(o.positive, o.probability, w),
    "auprc": lambda o, w: bootstrap.average_precisions(o.positive, o.probability, w),
    "balanced_accuracy_at_0.5": lambda o, w: _mean_of("sensitivity_at_0.5", "specificity_at_0.5", o, w),
    "f1_at_0.5": lambda o, w: bootstrap.f1s(o.called, o.positive, w),
    "balanced_accuracy_of_answered": lambda o, w: _mean_of("sensitivity_of_answered", "specificity_of_answered", o, w),
    "f1_of_answered": lambda o, w: bootstrap.f1s(o.said(Verdict.POSITIVE), o.positive & o.answered, w),
}
"""Best at 1 and resting on both classes: the smaller one tells how sure they can be."""

LOSSES: Mapping[str, Callable[[Outcomes, Floats], Floats]] = {
    "brier": lambda o, w: _mean(np.square(o.probability - o.positive), w),
    "log_loss": lambda o, w: _mean(bootstrap.log_losses(o.positive, o.probability), w),
    "calibration_error": lambda o, w: bootstrap.calibration_errors(o.positive, o.probability, w),
    "risk_coverage_area": lambda o, w: bootstrap.risk_areas(
        o.called != o.positive, np.maximum(o.probability, 1.0 - o.probability), w
    ),
}
"""Best at 0."""


def interval(rate: Mapping[str, float], *, signed: bool = False) -> str:
    """Value and interval in one cell."""
    form = "+.3f" if signed else ".3f"
    return f"{rate['value']:{form}} ({rate['low']:{form}} to {rate['high']:{form}})"


def rates(outcomes: Outcomes, names: Sequence[str] = (*FIGURES, *SHARES, *LOSSES)) -> dict[str, dict[str, float]]:
    """Measure; left out is what the data do not define, as specificity without negatives."""
    weight = bootstrap.weights(outcomes.groups)
    measured = {name: measured_rate(name, outcomes, weight) for name in names}
    return {name: rate.as_json() for name, rate in measured.items() if rate.is_known()}


def verdicts(outcomes: Outcomes, target: Target) -> dict[str, dict[str, int]]:
    """Count what was said of positives and of negatives, in the words of the target."""
    words = [target.word(Verdict(value)) for value in outcomes.verdict.tolist()]
    truths = {"positive": outcomes.positive, "negative": ~outcomes.positive}
    said = np.array(words)
    return {truth: dict(sorted(Counter(said[rows].tolist()).items())) for truth, rows in truths.items()}


PARTS_OF_A_CLASS = frozenset({"label", "sublabel"})
"""Columns whose values divide a class; of any other, a value of one class alone (a hospital) has no AUC."""


def subgroups(
    outcomes: Outcomes, tags: Sequence[Mapping[str, str]], by: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Measure the images of each value of each column that distinguishes images: column -> value -> figures.

    A sublabel that is a part of one class (bacteria) is set against all images of the other, or it had no AUC.

    `by` : columns beside the usual ones
    """
    found: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys([*TAG_COLUMNS, *by]):
        words = np.array([_word(column, tag.get(column, "")) for tag in tags])
        values = [word for word, _ in Counter(words[words != ""].tolist()).most_common(MOST_VALUES)]
        if len(values) > 1:
            of_column = {value: _subgroup(outcomes, words == value, column) for value in sorted(values, key=_place)}
            found[column] = {value: one for value, one in of_column.items() if one}
    return found


def _subgroup(outcomes: Outcomes, rows: Bools, column: str) -> dict[str, Any]:
    own = outcomes.taken(rows)
    measured = rates(own, tuple(SUBGROUP_NAMES))
    one_class = own.positive.all() or not own.positive.any()
    whole_class = one_class and len(own.positive) == (outcomes.positive == own.positive[0]).sum()
    if column in PARTS_OF_A_CLASS and one_class and not whole_class:
        against = outcomes.taken(rows | (outcomes.positive != own.positive[0]))
        measured = rates(against, ("auc",)) | measured
    return {"images": len(own.positive), "positives": int(own.positive.sum()), "rates": measured}


def _word(column: str, value: str) -> str:
    """A tag as it is grouped: ages by band, from years or DICOM's 061Y and 018M."""
    if column != "age" or not value:
        return value
    number, unit = (value[:-1], value[-1]) if value[-1] in "YMWD" else (value, "Y")
    try:
        years = float(number) * {"Y": 1.0, "M": 1 / 12.0, "W": 7 / 365.25, "D": 1 / 365.25}[unit]
    except ValueError:
        return ""
    after = [band for band in AGE_BANDS if band > years]
    first = max((band for band in AGE_BANDS if band <= years), default=0)
    if not after:
        return f"{first} years and more"
    if after[0] - first == 1:
        return f"{first} year{'' if first == 1 else 's'}"
    return f"{first} to {after[0] - 1} years"


def _place(value: str) -> tuple[float, str]:
    """Bands in the order of age, other words in that of the alphabet."""
    first = value.split()[0]
    return (float(first) if first.isdigit() else 0.0), value


def rows(name: str, outcomes: Outcomes, weight: Floats) -> Floats:
    """One figure of the data set and of each re-draw, as `bootstrap.weights` drew them."""
    if name in SHARES:
        return bootstrap.ratios(*SHARES[name](outcomes), weight)
    return (LOSSES if name in LOSSES else FIGURES)[name](outcomes, weight)


def measured_rate(name: str, outcomes: Outcomes, weight: Floats) -> Interval:
    """One figure with its interval."""
    if name in SHARES:
        witnesses = _count(outcomes.groups[SHARES[name](outcomes)[1]])
    elif name in LOSSES:
        return bootstrap.bracket(rows(name, outcomes, weight))
    else:
        among = outcomes.answered if name.endswith("of_answered") else np.ones_like(outcomes.answered)
        classes = (outcomes.groups[among & outcomes.positive], outcomes.groups[among & ~outcomes.positive])
        witnesses = min(map(_count, classes))
    return bootstrap.bracket(rows(name, outcomes, weight), witnesses)


def _count(groups: NDArray[np.str_]) -> int:
    return len(np.unique(groups))


def _mean(values: Floats, weight: Floats) -> Floats:
    return bootstrap.ratios(values, np.ones(len(values), dtype=np.bool_), weight)


def _mean_of(one: str, other: str, outcomes: Outcomes, weight: Floats) -> Floats:
    return (bootstrap.ratios(*SHARES[one](outcomes), weight) + bootstrap.ratios(*SHARES[other](outcomes), weight)) / 2.0
