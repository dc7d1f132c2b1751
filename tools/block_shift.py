"""What normal films of another kind would cost a profile, and what a correction for the site would give back.

    python -m tools.block_shift PROFILE_FOLDER --data FOLDER [--prevalence 0.625] [--shift 0 --shift 1.5 ...]

Elsewhere the normals may be another population and shift as a block, while the pneumonias stay. In the held-out parts,
normals are weighted towards the less sharp ones: by exp(-shift x sharpness in standard deviations). With 1.5 this shows
of pneumonia-pediatric 2.0 what the public test split showed. The shift was chosen by those figures: it explains them,
and predicts only for another profile. Nothing is written.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_node.domain import Verdict
from cxr_node.model import profile as profiles
from cxr_node.training.calibrate.platt import Sample, platt
from cxr_node.training.data import images, sharpness
from cxr_node.training.data.profile_folder import held_out
from cxr_node.training.measure import bootstrap, evaluate, inference
from cxr_node.training.measure.bootstrap import Bools, Floats
from cxr_node.training.measure.evaluate import Scorer

SITES, LABELLED, UNLABELLED = 200, 100, 624
"""Simulated sites, and the films of each that are given with and without labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Films:
    """Held-out films as a profile judged them, one row each; `sharpness` is `sharpness.of`."""

    positive: Bools
    groups: NDArray[np.str_]
    sharpness: Floats
    logit: Floats
    probability: Floats
    verdict: NDArray[np.str_]

    def weight(self, shift: float, prevalence: float) -> Floats:
        """Weight of each film, summing to 1: positives alike, negatives by how little sharp they are."""
        of_normals = self.sharpness[~self.positive]
        unlike = (of_normals.mean() - self.sharpness) / of_normals.std()
        raw = np.where(self.positive, 1.0, np.exp(shift * unlike))
        total = np.where(self.positive, raw[self.positive].sum(), raw[~self.positive].sum())
        return np.asarray(raw / total * np.where(self.positive, prevalence, 1.0 - prevalence))


def figures(films: Films, shift: float, prevalence: float) -> dict[str, bootstrap.Interval]:
    """Figures of merit under a shift, each with its interval over patients."""
    tilt, draws = films.weight(shift, prevalence), bootstrap.weights(films.groups)
    rows = draws * tilt
    for side, share in ((films.positive, prevalence), (~films.positive, 1.0 - prevalence)):
        rows[:, side] *= share / rows[:, side].sum(axis=1, keepdims=True)
    called, answered = films.probability >= 0.5, films.verdict != Verdict.INDETERMINATE
    right = np.where(films.positive, films.verdict == Verdict.POSITIVE, films.verdict == Verdict.NEGATIVE)
    sensitivity = bootstrap.ratios(called, films.positive, rows)
    specificity = bootstrap.ratios(~called, ~films.positive, rows)
    found = {
        "AUC": bootstrap.aucs(films.positive, films.probability, rows),
        "balanced accuracy at 0.5": (sensitivity + specificity) / 2.0,
        "sensitivity at 0.5": sensitivity,
        "specificity at 0.5": specificity,
        "answered": rows @ answered.astype(np.float64),
        "right answers": bootstrap.ratios(right, answered, rows),
        "calibration error": bootstrap.calibration_errors(films.positive, films.probability, rows),
        "Brier score": rows @ np.square(films.probability - films.positive),
    }
    return {name: bootstrap.bracket(values) for name, values in found.items()}


def prior_corrected(probability: Floats, prior: float = 0.5) -> Floats:
    """Fit the share of positives to unlabelled films (Saerens et al. 2002) and correct for it.

    It assumes that within a class the films look as they did where the profile was calibrated. `prior` : there.
    """
    share = prior
    for _ in range(100):
        raised = probability * share / prior
        corrected = raised / (raised + (1.0 - probability) * (1.0 - share) / (1.0 - prior))
        share = float(np.clip(corrected.mean(), 1e-3, 1.0 - 1e-3))
    return np.asarray(corrected)


def site_gains(films: Films, shift: float, prevalence: float) -> dict[str, tuple[float, float]]:
    """Balanced accuracy at 0.5 and calibration error at simulated sites: as it is, and after each correction."""
    rng, tilt = np.random.default_rng(0), films.weight(shift, prevalence)
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(SITES):
        shown = rng.choice(len(tilt), UNLABELLED, p=tilt)
        given = rng.choice(len(tilt), LABELLED, p=tilt)
        positive, as_it_is = films.positive[shown], films.probability[shown]
        answers = {
            "as it is": as_it_is,
            f"prior of {UNLABELLED} unlabelled films": prior_corrected(as_it_is),
            f"calibrated on {LABELLED} labelled films": _calibrated(films, given, films.logit[shown]),
        }
        for name, probability in answers.items():
            called = probability >= 0.5
            balanced = (called[positive].mean() + (~called[~positive]).mean()) / 2.0
            rows.setdefault(name, []).append((balanced, bootstrap.calibration_error(positive, probability)))
    return {name: (float(np.mean(both, axis=0)[0]), float(np.mean(both, axis=0)[1])) for name, both in rows.items()}


def _calibrated(films: Films, given: NDArray[np.intp], logit: Floats) -> Floats:
    """Fit Platt's map to a few labelled films, at their own share of positives."""
    positive = films.positive[given]
    ones = np.ones(len(given))
    sample = Sample(
        logit=films.logit[given], weight=ones, positive=positive, clean=ones > 0.0, groups=films.groups[given]
    )
    slope, intercept = platt(sample, float(positive.mean()))
    return bootstrap.sigmoid(slope * logit + intercept)


def judged(folder: Path, data: Path) -> Films:
    """Judge the films that a profile's training did not see."""
    items = [item for part in ("validation", "calibration") for item in held_out(folder, data, part, default=part)[0]]
    profile = profiles.load(folder)
    scorer = Scorer(profile)
    scores = scorer.score(inference.prepared(items, profile.input), lambda: None)
    return Films(
        positive=np.array([item.positive for item in items]),
        groups=np.array([item.group for item in items]),
        sharpness=np.array([sharpness.of(images.load(item)) for item in items]),
        logit=scores.logit(),
        probability=scorer.probability(scores),
        verdict=np.array([str(one.verdict) for one in evaluate.decisions_of(profile, scores)]),
    )


def main() -> None:
    """Print a table of figures and one of corrections for each shift."""
    parser = argparse.ArgumentParser(prog="python -m tools.block_shift", description=__doc__)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the images that the profile was trained on")
    parser.add_argument("--prevalence", type=float, default=0.625, help="share of positives; of the public test split")
    parser.add_argument("--shift", type=float, action="append", help="0: the normals as they are")
    arguments = parser.parse_args()
    films = judged(arguments.profile, arguments.data)
    for shift in arguments.shift or (0.0, 0.5, 1.0, 1.5, 2.0):
        normals = films.weight(shift, arguments.prevalence)[~films.positive]
        print(f"shift {shift:g}: as many as {normals.sum() ** 2 / np.square(normals).sum():.0f} normals alike")
        for name, one in figures(films, shift, arguments.prevalence).items():
            print(f"  {name}: {one.value:.3f} ({one.low:.3f} to {one.high:.3f})")
        for name, (balanced, error) in site_gains(films, shift, arguments.prevalence).items():
            print(f"  {name}: balanced accuracy {balanced:.3f}, calibration error {error:.3f}")


if __name__ == "__main__":
    main()
