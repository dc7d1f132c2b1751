"""What people read instead of a coded reason to abstain: one phrase for each, in every table, page, picture and report.

Programs read the codes themselves (between-thresholds). Imports no library, so that the command line may ask without
loading one. The names of verdicts are the target's (`domain.Target.name`).
"""

from __future__ import annotations

from collections.abc import Mapping

from cxr_node.domain import AbstainReason

ABSTAIN_REASONS: Mapping[AbstainReason, str] = {
    AbstainReason.BETWEEN_THRESHOLDS: "between the two thresholds",
    AbstainReason.VIEWS_DISAGREE: "predictions for this image disagree",
    AbstainReason.UNLIKE_TRAINING_DATA: "image unlike the training data",
}
"""Why there is no answer; completes "AI gives no answer: ..."."""


def reason(word: str | None) -> str:
    """Put a reason to abstain in words; any other reason stays as it is, and none is ""."""
    return ABSTAIN_REASONS[AbstainReason(word)] if word in set(AbstainReason) else word or ""
