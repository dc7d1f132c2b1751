"""A site's own thresholds: fitted on answers of a profile that is too sure there, they keep their promise."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.errors import DataError
from cxr_node.model.site_calibration import at_site
from cxr_node.training.calibrate import site
from cxr_node.training.calibrate.guarantee import Patients, Wish

WISH = Wish(ppv=0.85, npv=0.9, confidence=0.95, prevalence=0.3)


def drawn(seed: int, number: int = 600, prevalence: float = 0.3) -> Patients:
    """Studies of a site where the profile's logit is 2 too high: at 0.5 two of three negatives would be positive."""
    dice = np.random.default_rng(seed)
    positive = dice.random(number) < prevalence
    logit = dice.normal(np.where(positive, 2.2, -2.2), 1.4) + 2.0
    return Patients(
        probability=1.0 / (1.0 + np.exp(-logit)),
        positive=positive,
        answerable=dice.random(number) > 0.05,
        groups=np.arange(number).astype(np.str_),
    )


def values(fitted: site.Fitted, patients: Patients) -> tuple[float, float]:
    """Predictive values of the answers to other studies of the same site."""
    there = np.array([at_site(each, fitted.slope, fitted.intercept) for each in patients.probability])
    called = patients.answerable & (there >= fitted.kept.report_at)
    ruled_out = patients.answerable & (there < fitted.kept.rule_out_below)
    return float(patients.positive[called].mean()), float((~patients.positive[ruled_out]).mean())


def test_the_promise_is_kept_at_the_site() -> None:
    fresh = drawn(10_000, 40_000)
    broken = 0
    for seed in range(20):
        ppv, npv = values(site.fit(drawn(seed), WISH, "pneumonia"), fresh)
        broken += ppv < WISH.ppv or npv < WISH.npv
    assert broken <= 4  # of 20 at a confidence of 0.95, more than 4 is a chance of 0.3 %


def test_where_the_profile_is_too_sure_the_site_is_less_so() -> None:
    fitted = site.fit(drawn(1), WISH, "pneumonia")
    assert at_site(0.5, fitted.slope, fitted.intercept) < 0.2
    sample = drawn(2, 20_000)
    there = np.array([at_site(each, fitted.slope, fitted.intercept) for each in sample.probability])
    assert abs(there.mean() - 0.3) < 0.03 < abs(sample.probability.mean() - 0.3)


def test_what_cannot_be_promised_is_refused_with_what_can() -> None:
    with pytest.raises(DataError, match="is the most that these can promise"):
        site.fit(drawn(1, 120), Wish(ppv=0.99, npv=0.99, confidence=0.95, prevalence=0.3), "pneumonia")
    with pytest.raises(DataError, match="one class only"):
        site.fit(drawn(1, 50, prevalence=0.0), WISH, "pneumonia")
