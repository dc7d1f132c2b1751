"""What people read instead of a verdict or a doubt: one name for each, in every table, page, picture and report.

Programs read the stable words of `domain` (NORMAL, between-thresholds); people never do: NORMAL is the very word that
must not be read into the answer. Knows no library, so that every room's view may ask.
"""

from __future__ import annotations

from collections.abc import Mapping

from cxr_node.domain import Doubt, Verdict

VERDICTS: Mapping[Verdict, str] = {
    Verdict.POSITIVE: "PNEUMONIA SUSPECTED",
    Verdict.NEGATIVE: "no pneumonia detected",
    Verdict.INDETERMINATE: "UNCERTAIN",
    Verdict.REJECTED: "not analysed",
}
"""The banner says the same in capitals."""


DOUBTS: Mapping[Doubt, str] = {
    Doubt.BETWEEN_THRESHOLDS: "between the two thresholds",
    Doubt.VIEWS_DISAGREE: "its predictions for this image disagree",
    Doubt.UNLIKE_TRAINING_DATA: "image unlike those it learned from",
}
"""Why there is no answer; completes "AI gives no answer: ..."."""


def reason(word: str | None) -> str:
    """A doubt in words; what is no doubt as it is, "" where there is none."""
    return DOUBTS[Doubt(word)] if word in set(Doubt) else word or ""
