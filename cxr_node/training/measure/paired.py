"""Two profiles on the same films: what one gains over the other, with the interval of the difference itself.

Both see the same patients in every re-draw, so a film that is hard for both widens nothing. Knows no network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cxr_node.domain import Verdict
from cxr_node.training.measure import bootstrap, metrics
from cxr_node.training.measure.bootstrap import Bools
from cxr_node.training.measure.metrics import Outcomes

COMPARED = (
    "auc", "balanced_accuracy_at_0.5", "answered", "accuracy_of_answered", "rightly_answered", "calibration_error",
    "brier",
)  # fmt: skip
RIGHT_NAMES = {"at_0.5": "at 0.5", "of_answers": "verdicts (UNCERTAIN is not right)"}


def compared(first: Outcomes, second: Outcomes) -> dict[str, Any]:
    """Set a second profile against a first one; rows are the same films in the same order.

    Returns images; `rates`: name -> figure of the `first`, of the `second`, and the `difference` second - first;
    `right`: for answers at 0.5 and for those that are given, on how many films one alone is right, and a test;
    `opposite`: on how many films one says positive and the other negative
    """
    weight = bootstrap.weights(first.groups)
    rates = {}
    for name in COMPARED:
        each = [metrics.rows(name, one, weight) for one in (first, second)]
        told = {
            "first": metrics.measured_rate(name, first, weight),
            "second": metrics.measured_rate(name, second, weight),
            "difference": bootstrap.bracket(each[1] - each[0]),
        }
        if all(one.is_known() for one in told.values()):
            rates[name] = {part: one.as_json() for part, one in told.items()}
    return {
        "images": len(first.positive),
        "patients": len(np.unique(first.groups)),
        "rates": rates,
        "right": {
            "at_0.5": discordant(first.called == first.positive, second.called == second.positive, first.groups),
            "of_answers": discordant(first.right, second.right, first.groups),
        },
        "opposite": _opposite(first, second),
    }


def discordant(first: Bools, second: Bools, groups: NDArray[np.str_]) -> dict[str, float | int]:
    """Count where one alone is right, and ask whether chance would do it: McNemar's question, of patients.

    A patient counts once, for the profile that is right on more of the patient's films; the sign test over patients is
    exact (binomial, two-sided).
    """
    names, codes = np.unique(groups, return_inverse=True)
    gain = np.bincount(codes, weights=second.astype(float) - first.astype(float), minlength=len(names))
    won, lost = int((gain > 0).sum()), int((gain < 0).sum())
    return {
        "only_first": int((first & ~second).sum()),
        "only_second": int((second & ~first).sum()),
        "patients_for_first": lost,
        "patients_for_second": won,
        "p": round(float(stats.binomtest(won, won + lost).pvalue), 6) if won + lost else 1.0,
    }


def _opposite(first: Outcomes, second: Outcomes) -> int:
    sides = (Verdict.POSITIVE, Verdict.NEGATIVE)
    return sum(int((first.said(one) & second.said(other)).sum()) for one, other in (sides, sides[::-1]))
