"""Drift: found where it is, hardly ever where it is not; simulated with a seed, and on real films where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import drift as simulated
from benchmarks.drift import Site, drawn, found_within, referred
from cxr_node.assurance import drift, predictive
from cxr_node.domain import Verdict
from cxr_node.node.ledger.films import Film, Reference
from tests.shared import shared

np = pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def before() -> Reference:
    return referred(drawn(Site(), 2300, np.random.default_rng(1)))


def test_a_ppv_that_falls_is_found_within_160_positives() -> None:
    """The sum cries once in 3,000 read positives where nothing has changed."""
    assert found_within(160, runs=500, seed=20) >= 0.90
    chart, level = predictive.watch(0.90)
    assert 3000 <= chart.run_length(level) < 3300
    assert found_within(160, runs=500, seed=21, after=0.90) < 0.08


def test_a_year_without_a_change_has_at_most_one_alarm() -> None:
    assert simulated.false_alarms(365, seed=3) <= 1


@pytest.mark.parametrize(
    ("site", "name"),
    [
        (Site(abstained=0.20), "abstention"),
        (Site(rejected=0.16), "rejection"),
        (Site(positive=0.50), "positive"),
        (Site(positive=0.12), "positive"),
    ],
)
def test_a_share_that_changes_is_found_within_500_films(before: Reference, site: Site, name: str) -> None:
    newer = drawn(site, 500, np.random.default_rng(2), first=5000)
    seen = drift.compare(before, newer)
    assert name in {figure.name for figure in seen.begun}
    (figure,) = [each for each in seen.begun if each.name == name]
    assert figure.begun_at is not None and figure.sender == simulated.SENDER


def test_each_figure_says_of_how_many_and_what_it_could_have_seen(before: Reference) -> None:
    seen = drift.compare(before, drawn(Site(), 600, np.random.default_rng(4), first=5000))
    assert not seen.begun
    names = {"abstention", "rejection", "positive", "logit", "distance", "features"}
    assert {figure.name for figure in seen.figures} == names
    for figure in seen.figures:
        assert figure.films >= 400 and figure.reference_films >= 2000 and figure.adjusted >= figure.p
    least = {(figure.name, figure.test): figure.least for figure in seen.figures}
    assert 0.15 < (least["abstention", "CUSUM, rises"] or 0) < 0.22
    assert 0.2 < (least["logit", "KS"] or 0) < 0.5


def test_one_room_of_five_is_found_by_its_own_figures(before: Reference) -> None:
    rng = np.random.default_rng(7)
    rooms = [replace(film, sender=f"ROOM_{n % 5}") for n, film in enumerate(drawn(Site(), 1000, rng, first=5000))]
    odd = [_shifted(film, 3.0) if film.sender == "ROOM_3" else film for film in rooms]
    begun = drift.compare(before, odd).begun
    assert ("logit", "ROOM_3") in {(figure.name, figure.sender) for figure in begun}
    assert all(figure.sender in ("ROOM_3", None) for figure in begun)


def _shifted(film: Film, by: float) -> Film:
    return film if film.logit is None else replace(film, logit=film.logit + by)


def test_too_few_films_are_not_compared(before: Reference) -> None:
    seen = drift.compare(before, drawn(Site(), 50, np.random.default_rng(8), first=5000))
    assert {figure.test for figure in seen.figures} == {"CUSUM, rises", "CUSUM, falls"}
    assert not drift.compare(before, []).figures


def test_expected_and_measured_values_stand_side_by_side(before: Reference) -> None:
    newer = drawn(Site(), 500, np.random.default_rng(9), first=5000)
    read = [(Verdict.POSITIVE, n % 10 != 0) for n in range(200)] + [(Verdict.NEGATIVE, n % 25 == 0) for n in range(100)]
    ppv, npv = drift.compare(before, newer, read).predictive
    assert ppv.expected == pytest.approx(0.9) and npv.expected == pytest.approx(0.95)
    assert (ppv.measured, ppv.read, ppv.has_fallen) == (0.9, 200, False)
    assert ppv.low is not None and ppv.low < 0.9 < (ppv.high or 0)
    assert npv.measured == 0.96
    assert ppv.least is not None and 0.75 < ppv.least < 0.9
    fallen, _ = drift.compare(before, newer, [(Verdict.POSITIVE, n % 3 != 0) for n in range(200)]).predictive
    assert fallen.has_fallen


REAL = {case.name: case for case in simulated.CASES}


@pytest.fixture(scope="module")
def judge() -> simulated.Judge:
    shared("data", "kermany224")
    return simulated.Judge()


@pytest.fixture(scope="module")
def own(judge: simulated.Judge) -> Reference:
    paths = simulated.pictures(("kermany224",))[:150]
    return referred([judge.film(path, number) for number, path in enumerate(paths, 1)], len(paths))


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name in REAL if name != "nothing changed"])
def test_real_films_that_become_others_are_found(judge: simulated.Judge, own: Reference, name: str) -> None:
    """Of 150 films in the reference and as few as show it; the table in docs/trust.md has 2,000 and 500."""
    case = REAL[name]
    for folder in case.folders:
        shared("data", folder)
    paths = simulated.pictures(case.folders)[-(100 if name == "new contrast style" else 40) :]
    films = [judge.film(path, 1000 + number, case.change) for number, path in enumerate(paths)]
    found, seen = simulated.flagged_after(own, films)
    assert found is not None, seen.figures


@pytest.mark.whole
def test_real_films_that_stay_the_same_are_not(judge: simulated.Judge, own: Reference) -> None:
    paths = simulated.pictures(("kermany224",))[-100:]
    found, seen = simulated.flagged_after(own, [judge.film(path, 1000 + n) for n, path in enumerate(paths)])
    assert found is None, seen.begun
