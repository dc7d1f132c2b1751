"""The profile for adults in weights/ on films of other hospitals: what it may not say of them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from cxr_node import resources
from cxr_node.config.loader import parse
from cxr_node.domain import Verdict
from cxr_node.model.profile import Profile, load
from cxr_node.training.data.images import Item
from cxr_node.training.measure import evaluate, inference, model_card
from cxr_node.training.measure.evaluate import Scorer
from cxr_node.wiring import profiles
from tests.shared import shared

LANDED = resources.profile_folder("pneumonia-adult")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load(LANDED)


def test_the_age_chooses_between_the_built_in_profiles(tmp_path: Path) -> None:
    found = profiles(parse({"spool": {"path": str(tmp_path)}}))
    assert [(each.name, each.population.age_years) for each in found] == [
        ("pneumonia-pediatric", (1.0, 5.0)),
        ("pneumonia-adult", (18.0, 120.0)),
    ]


def test_a_profile_of_ones_own_stands_alone_unless_others_are_named(tmp_path: Path) -> None:
    spool = {"path": str(tmp_path)}
    assert parse({"spool": spool, "model": {"profile": "/srv/own"}}).model.others == ()
    named = parse({"spool": spool, "model": {"profile": "/srv/own", "others": ["pneumonia-adult"]}})
    assert named.model.others == ("pneumonia-adult",)


def test_its_card_is_that_of_its_weights(profile: Profile, tmp_path: Path) -> None:
    for name in ("profile.yaml", "calibration.yaml", "metrics.json"):
        (tmp_path / name).write_bytes((LANDED / name).read_bytes())
    model_card.write(tmp_path)
    written = (LANDED / model_card.NAME).read_text("utf-8")
    assert (tmp_path / model_card.NAME).read_text("utf-8") == written
    assert profile.weights_sha256 in written


@pytest.mark.shared
def test_tuberculosis_is_hardly_ever_ruled_out(profile: Profile) -> None:
    assert _verdicts(profile, _files("tb")[::3])[Verdict.NEGATIVE] <= 2  # of 188; of all 564 it is three


@pytest.mark.shared
def test_pneumonias_of_other_hospitals_are_hardly_ever_ruled_out(profile: Profile) -> None:
    files = [file for group in ("hannover", "figure1") for file in _files("others", group)]
    assert _verdicts(profile, files[::4])[Verdict.NEGATIVE] == 0


@pytest.mark.shared
@pytest.mark.parametrize("group", ["stranger_lateral", "stranger_ct"])
def test_a_lateral_view_or_a_slice_is_never_answered(profile: Profile, group: str) -> None:
    found = _verdicts(profile, _files("others", group))
    assert found.total() > 30
    assert set(found) == {Verdict.INDETERMINATE}


def _files(name: str, group: str = "") -> list[Path]:
    folder = shared("data", name)
    with (folder / "manifest.csv").open(newline="") as lines:
        return [folder / row["file"] for row in csv.DictReader(lines) if not group or row["group"] == group]


def _verdicts(profile: Profile, files: list[Path]) -> Counter[Verdict]:
    items = [Item(path=file, positive=False, kind="", group=str(n), digest="") for n, file in enumerate(files)]
    scorer = Scorer(profile)
    scores = inference.score(scorer.network, scorer.stats, profile.input, inference.prepared(items, profile.input))
    return Counter(decision.verdict for decision in evaluate.decisions_of(profile, scores))
