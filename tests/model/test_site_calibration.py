"""A site's calibration is laid over the profile that it was fitted on, and over no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxr_node.domain import Prediction, Verdict
from cxr_node.errors import ConfigError, ModelError
from cxr_node.model import profile, site_calibration
from cxr_node.model.decision import decide
from cxr_node.model.profile import GuaranteeFile, Profile
from cxr_node.model.site_calibration import SiteCalibrationFile, applied, at_site
from cxr_node.resources import bundled
from cxr_node.wiring import profiles
from tests.node import workplace

PROMISE = GuaranteeFile(
    ppv=0.9, npv=0.9, confidence=0.95, prevalence=0.3, positive_patients=100, negative_patients=200, method="of a test"
)


@pytest.fixture
def released(tmp_path: Path) -> Profile:
    folder = tmp_path / "profile"
    shutil.copytree(bundled("weights") / "pneumonia-pediatric", folder)
    return profile.load(folder)


def written(of: Profile, path: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "profile": of.name,
        "version": of.version,
        "weights_sha256": of.weights_sha256,
        "calibration_sha256": profile.sha256(of.folder / "calibration.yaml"),
        "method": "of a test",
        "fitted_on": "9 studies",
        "slope": 0.5,
        "intercept": -1.0,
        "report_at": 0.92,
        "rule_out_below": 0.05,
        "guarantee": PROMISE,
    }
    site_calibration.write(path, SiteCalibrationFile.model_validate(values | changes))
    return path


def test_it_changes_thresholds_version_and_words_and_nothing_else(released: Profile, tmp_path: Path) -> None:
    path = written(released, tmp_path / "site.yaml")
    (there,) = applied([released], [path])
    point, before = there.operating_point, released.operating_point
    assert (point.name, point.report_at, point.rule_out_below) == ("site", 0.92, 0.05)
    assert (point.max_spread, point.max_distance) == (before.max_spread, before.max_distance)
    assert (there.slope, there.intercept, there.weights_sha256) == (
        released.slope, released.intercept, released.weights_sha256,
    )  # fmt: skip
    assert there.version == f"{released.version}+site.{profile.sha256(path)[:8]}"
    assert "9 studies" in there.calibration and there.site == (0.5, -1.0)
    assert applied([released], []) == [released]


def test_spread_and_distance_set_aside_what_they_did(released: Profile, tmp_path: Path) -> None:
    (there,) = applied([released], [written(released, tmp_path / "site.yaml")])
    sure = Prediction(probability={"PNEUMONIA": 0.99}, spread=0.01, distance=0.1)
    assert decide(sure, there.operating_point).verdict is Verdict.POSITIVE
    for doubt in ({"spread": 0.9}, {"distance": 9.0}):
        unsure = Prediction(probability={"PNEUMONIA": 0.99}, **({"spread": 0.01, "distance": 0.1} | doubt))
        assert decide(unsure, there.operating_point).verdict is Verdict.INDETERMINATE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "0.1"}, "another release"),
        ({"weights_sha256": "ab" * 32}, "another release"),
        ({"calibration_sha256": "ab" * 32}, "another release"),
        ({"profile": "other"}, "not configured"),
    ],
)
def test_of_another_release_it_is_refused(
    released: Profile, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        applied([released], [written(released, tmp_path / "site.yaml", **changes)])


def test_two_of_one_profile_and_a_broken_one_are_refused(released: Profile, tmp_path: Path) -> None:
    path = written(released, tmp_path / "site.yaml")
    with pytest.raises(ModelError, match="second site calibration"):
        applied([released], [path, path])
    path.write_text(path.read_text().replace("slope: 0.5", "slope: -1"))
    with pytest.raises(ModelError, match="slope"):
        applied([released], [path])
    with pytest.raises(ModelError, match="cannot be read"):
        applied([released], [tmp_path / "none.yaml"])


def test_a_line_of_the_configuration_switches_it_on(released: Profile, tmp_path: Path) -> None:
    path = written(released, tmp_path / "site.yaml")
    on = workplace.config(tmp_path, model={"profile": str(released.folder), "site_calibrations": [str(path)]})
    assert profiles(on)[0].operating_point.report_at == 0.92
    path.unlink()
    with pytest.raises(ConfigError, match=r"site\.yaml"):
        profiles(on)


@pytest.mark.parametrize("probability", [0.0, 1e-9, 0.3, 0.5, 0.999, 1.0])
def test_there_and_back_again(probability: float) -> None:
    there = at_site(probability, 0.5, -1.0)
    assert 0.0 <= there <= 1.0
    assert at_site(there, 2.0, 2.0) == pytest.approx(probability, abs=1e-9)
