"""What people read instead of a coded reason to abstain and of a verdict's word, in every table, page and report.

Programs read the codes themselves (between-thresholds). Imports no library, so that the command line and the page may
ask without loading one. The names of verdicts are the target's (`domain.Target.name`).
"""

from __future__ import annotations

from collections.abc import Mapping

from cxr_node.domain import PNEUMONIA, AbstainReason, Target, Verdict

ABSTAIN_REASONS: Mapping[AbstainReason, str] = {
    AbstainReason.BETWEEN_THRESHOLDS: "between the two thresholds",
    AbstainReason.VIEWS_DISAGREE: "predictions for this image disagree",
    AbstainReason.UNLIKE_TRAINING_DATA: "image unlike the training data",
}
"""Why there is no answer; completes "AI gives no answer: ..."."""


def reason(word: str | None) -> str:
    """Put a reason to abstain in words, and "too late"; any other reason stays as it is, and none is ""."""
    if word == "too-late":
        return "too late"
    return ABSTAIN_REASONS[AbstainReason(word)] if word in set(AbstainReason) else word or ""


SYMBOLS = {Verdict.POSITIVE: "▲", Verdict.NEGATIVE: "○", Verdict.INDETERMINATE: "?", Verdict.REJECTED: "✕"}
"""Before the name of a verdict: never color alone."""


def verdict(word: str, target: Target | None) -> str:
    """Symbol and name of a verdict, given its word for programs.

    Without its target (the profile is not configured any more) a NORMAL is not said to be of another one.
    """
    known = Verdict.of_word(word)
    if target is not None and target.word(known) == word:
        name = target.name(known)
    else:
        name = {Verdict.POSITIVE: f"{word} SUSPECTED", Verdict.NEGATIVE: "negative, of a profile not configured"}.get(
            known, PNEUMONIA.name(known)
        )
    return f"{SYMBOLS[known]} {name}"
