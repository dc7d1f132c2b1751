"""The promise on predictive values: it holds over re-draws, where the obvious way to place thresholds does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cxr_node.errors import DataError
from cxr_node.training.calibrate import guarantee
from cxr_node.training.calibrate.guarantee import Patients, Wish
from cxr_node.training.measure import bootstrap

GAP = 3.2
"""Distance of the classes' mean logits, in standard deviations: AUC 0.988."""
WISH = Wish(ppv=0.93, npv=0.97, confidence=0.95, prevalence=0.35)
DRAWS = 300


def drawn(rng: np.random.Generator, each: int = 500, most_images: int = 3, gap: float = GAP) -> Patients:
    """Patients of one class with one to `most_images` images that resemble each other; the sick have more."""
    positive = np.arange(2 * each) % 2 == 0
    images = np.where(positive, rng.integers(1, most_images + 1, 2 * each), rng.integers(1, 3, 2 * each))
    images = np.minimum(images, most_images)
    own = rng.normal(size=2 * each)
    patient = np.repeat(np.arange(2 * each), images)
    logit = gap * (positive[patient] - 0.5) + np.sqrt(0.9) * own[patient] + np.sqrt(0.1) * rng.normal(size=len(patient))
    return Patients(
        probability=bootstrap.sigmoid(logit),
        positive=positive[patient],
        answerable=np.ones(len(patient), dtype=bool),
        groups=patient.astype(str),
    )


def true_values(report_at: float, rule_out_below: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV in the population of `drawn`, for a random image of a random patient."""
    high, low = (np.log(p / (1.0 - p)) for p in (report_at, rule_out_below))
    sick = prevalence * norm.sf(high - GAP / 2), prevalence * norm.cdf(low - GAP / 2)
    well = (1.0 - prevalence) * norm.sf(high + GAP / 2), (1.0 - prevalence) * norm.cdf(low + GAP / 2)
    return float(sick[0] / (sick[0] + well[0])), float(well[1] / (sick[1] + well[1]))


def naive(patients: Patients, wish: Wish) -> tuple[float, float]:
    """The obvious way: the widest thresholds at which the set's own predictive values, weighted by class, suffice."""

    def widest(score: np.ndarray, own: np.ndarray, odds: float, value: float) -> float:
        thresholds = np.unique(score)
        right, wrong = (1.0 - np.searchsorted(np.sort(score[one]), thresholds) / one.sum() for one in (own, ~own))
        return float(thresholds[odds * (1 - value) / value * right >= wrong].min())

    odds = wish.prevalence / (1.0 - wish.prevalence)
    report_at = widest(patients.probability, patients.positive, odds, wish.ppv)
    return report_at, -widest(-patients.probability, ~patients.positive, 1.0 / odds, wish.npv)


def broken(values: tuple[float, float], wish: Wish = WISH) -> bool:
    return values[0] < wish.ppv or values[1] < wish.npv


@pytest.mark.parametrize("most_images", [1, 3])
def test_promise_holds_in_95_percent_of_redraws_and_the_naive_threshold_does_not(most_images: int) -> None:
    rng = np.random.default_rng(20)
    kept, obvious, answered = [], [], []
    for _ in range(DRAWS):
        patients = drawn(rng, most_images=most_images)
        obvious.append(broken(true_values(*naive(patients, WISH), WISH.prevalence)))
        found = kept_or_none(patients, WISH)
        if found is None:  # said so: nothing was promised
            continue
        kept.append(broken(true_values(found.report_at, found.rule_out_below, WISH.prevalence)))
        answered.append(norm.sf(np.log(found.report_at / (1 - found.report_at)) - GAP / 2))
    assert len(kept) > 0.9 * DRAWS
    assert sum(kept) <= 0.05 * DRAWS
    assert np.mean(obvious) > 0.3
    assert np.median(answered) > 0.4  # it is kept by answering, not by falling silent


def test_images_taken_for_patients_would_break_it() -> None:
    """Many equal images of one patient are one witness: without that, the same test breaks its promise."""
    rng, as_patients, as_images = np.random.default_rng(4), [], []
    for _ in range(DRAWS):
        one = drawn(rng, each=120, most_images=1)
        many = Patients(**{f.name: np.repeat(getattr(one, f.name), 12) for f in dataclasses.fields(one)})
        alone = dataclasses.replace(many, groups=np.arange(len(many.groups)).astype(str))
        for patients, results in ((many, as_patients), (alone, as_images)):
            found = kept_or_none(patients, WISH)
            results.append(
                found is not None and broken(true_values(found.report_at, found.rule_out_below, WISH.prevalence))
            )
    assert np.mean(as_patients) <= 0.05
    assert np.mean(as_images) > 0.15


SETS = st.builds(
    lambda seed, each, gap, grid: (drawn(np.random.default_rng(seed), each=each, gap=gap), grid),
    seed=st.integers(0, 10_000),
    each=st.integers(20, 120),
    gap=st.floats(0.5, 6.0),
    grid=st.sampled_from([0, 5, 20]),
)
VALUES = st.floats(0.5, 0.97)
WISHES = st.builds(Wish, ppv=VALUES, npv=VALUES, confidence=st.floats(0.5, 0.99), prevalence=st.floats(0.1, 0.9))


def rounded(patients: Patients, grid: int) -> Patients:
    """With many ties where there is a grid."""
    if not grid:
        return patients
    return dataclasses.replace(patients, probability=np.round(patients.probability * grid) / grid)


def kept_or_none(patients: Patients, wish: Wish) -> guarantee.Kept | None:
    try:
        return guarantee.thresholds(patients, wish, "PNEUMONIA")
    except DataError:
        return None


@settings(max_examples=60, deadline=None)
@given(drawing=SETS, wish=WISHES, aside=st.floats(0.0, 0.2))
def test_own_set_keeps_it_too(drawing: tuple[Patients, int], wish: Wish, aside: float) -> None:
    patients = rounded(*drawing)
    patients = dataclasses.replace(patients, answerable=np.random.default_rng(1).random(len(patients.groups)) >= aside)
    found = kept_or_none(patients, wish)
    if found is None:
        return
    assert 0.0 <= found.rule_out_below <= found.report_at <= 1.0
    odds = wish.prevalence / (1.0 - wish.prevalence)
    reported = patients.answerable & (patients.probability >= found.report_at)
    ruled_out = patients.answerable & (patients.probability < found.rule_out_below)
    for said, own, factor, value in (
        (reported, patients.positive, odds, wish.ppv),
        (ruled_out, ~patients.positive, 1.0 / odds, wish.npv),
    ):
        right = np.mean([said[own & (patients.groups == one)].all() for one in np.unique(patients.groups[own])])
        wrong = np.mean([said[~own & (patients.groups == one)].any() for one in np.unique(patients.groups[~own])])
        assert factor * right / (factor * right + wrong) >= value


def from_half(found: guarantee.Kept) -> float:
    return abs(found.report_at - 0.5) + abs(found.rule_out_below - 0.5)


NEAR_CHANCE = drawn(np.random.default_rng(215), each=105, gap=1.5), 0
"""Of its two sequences one passes far beyond one half only: the one that reaches one half is to be taken."""


@settings(max_examples=60, deadline=None)
@given(drawing=SETS, wish=WISHES, more=st.floats(0.0, 0.1), which=st.sampled_from(["ppv", "npv", "confidence"]))
@example(NEAR_CHANCE, Wish(ppv=0.5, npv=0.599609375, confidence=0.625, prevalence=0.5), 0.0625, "npv")
def test_a_stricter_wish_never_answers_more(drawing: tuple[Patients, int], wish: Wish, more: float, which: str) -> None:
    """More is said of thresholds round one half; where the wish needs both on one side of it, they come no nearer."""
    patients = rounded(*drawing)
    wish = dataclasses.replace(wish, prevalence=0.5)
    strict = dataclasses.replace(wish, **{which: min(0.995, getattr(wish, which) + more)})
    lax_found, strict_found = kept_or_none(patients, wish), kept_or_none(patients, strict)
    if strict_found is not None:
        assert lax_found is not None
        assert from_half(strict_found) >= from_half(lax_found) - 1e-12
        if strict_found.rule_out_below <= 0.5 <= strict_found.report_at:
            assert strict_found.report_at >= lax_found.report_at
            assert strict_found.rule_out_below <= lax_found.rule_out_below


@settings(max_examples=20, deadline=None)
@given(drawing=SETS, seed=st.integers(0, 100))
def test_order_of_images_does_not_matter(drawing: tuple[Patients, int], seed: int) -> None:
    patients = rounded(*drawing)
    places = np.random.default_rng(seed).permutation(len(patients.groups))
    shuffled = Patients(**{f.name: getattr(patients, f.name)[places] for f in dataclasses.fields(patients)})
    wish = Wish(ppv=0.7, npv=0.7, confidence=0.9, prevalence=0.5)
    assert kept_or_none(patients, wish) == kept_or_none(shuffled, wish)


def test_a_patient_of_both_classes_is_one_witness() -> None:
    patients = drawn(np.random.default_rng(2), each=100, most_images=1, gap=6.0)
    joined = dataclasses.replace(patients, groups=np.repeat(np.arange(100), 2).astype(str))
    found = guarantee.thresholds(joined, Wish(ppv=0.7, npv=0.7, confidence=0.9, prevalence=0.5), "PNEUMONIA")
    assert found.positives + found.negatives == 100
    assert 30 < found.positives < 70


def test_too_few_patients_are_told_how_many_would_do() -> None:
    wish = Wish(ppv=0.9, npv=0.9, confidence=0.95, prevalence=0.5)

    def faultless(each: int) -> Patients:
        return drawn(np.random.default_rng(1), each=each, most_images=1, gap=100.0)

    with pytest.raises(DataError, match="at least 57 patients of each class are needed") as caught:
        guarantee.thresholds(faultless(56), wish, "PNEUMONIA")
    assert "\n" not in str(caught.value)
    found = guarantee.thresholds(faultless(57), wish, "PNEUMONIA")
    assert found.report_at == 0.5 == found.rule_out_below


def test_too_many_errors_are_told_what_can_be_promised() -> None:
    patients = drawn(np.random.default_rng(1), each=400)
    with pytest.raises(DataError, match=r"PPV 0\.99 .*; PPV (0\.\d+) is the most that these can promise") as caught:
        guarantee.thresholds(patients, dataclasses.replace(WISH, ppv=0.99), "PNEUMONIA")
    possible = float(str(caught.value).rsplit("PPV ", 1)[1].split()[0])
    guarantee.thresholds(patients, dataclasses.replace(WISH, ppv=possible), "PNEUMONIA")
    with pytest.raises(DataError):
        guarantee.thresholds(patients, dataclasses.replace(WISH, ppv=possible + 0.01), "PNEUMONIA")


def test_prevalence_is_that_of_the_wish_not_of_the_set() -> None:
    patients = drawn(np.random.default_rng(3), each=400)
    rare, frequent = (
        guarantee.thresholds(patients, Wish(ppv=0.93, npv=0.93, confidence=0.95, prevalence=share), "PNEUMONIA")
        for share in (0.4, 0.6)
    )
    assert rare.report_at > frequent.report_at
    assert rare.rule_out_below > frequent.rule_out_below
