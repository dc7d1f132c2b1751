"""From a prediction to a verdict: two thresholds, and three reasons to abstain.

Knows no torch and no pixels. Thresholds come with the weights (`model.profile`); nothing here is tunable.
"""

from __future__ import annotations

from cxr_node.domain import AbstainReason, Decision, OperatingPoint, Prediction, Verdict


def decide(prediction: Prediction, point: OperatingPoint) -> Decision:
    """Judge one prediction at an operating point.

    The doubt about the image comes first: a probability says nothing of an image unlike those it was learned from.
    Where the profile does not know its training images, that doubt cannot be raised; its results say so. A limit
    without a distance is a doubt: what was not measured was not found near.
    """
    probability = prediction.probability[point.label]
    limit = point.distance_limit(prediction)
    if limit is not None and (prediction.distance is None or prediction.distance > limit):
        return Decision(verdict=Verdict.INDETERMINATE, abstain_reason=AbstainReason.UNLIKE_TRAINING_DATA)
    if prediction.spread > point.max_spread:
        return Decision(verdict=Verdict.INDETERMINATE, abstain_reason=AbstainReason.VIEWS_DISAGREE)
    if probability >= point.report_at:
        return Decision(verdict=Verdict.POSITIVE)
    if probability < point.rule_out_below:
        return Decision(verdict=Verdict.NEGATIVE)
    return Decision(verdict=Verdict.INDETERMINATE, abstain_reason=AbstainReason.BETWEEN_THRESHOLDS)
