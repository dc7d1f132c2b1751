"""The page for radiologists: it leaves out no verdict, doubt or reason, and its numbers are the built-in profile's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cxr_node.dicom.words import names, wording
from cxr_node.domain import PNEUMONIA, Reason, Verdict
from cxr_node.result_kinds import SHAPES
from tests import builders

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reading-results.md"
MAX_PICTURE_KB = 250


@pytest.fixture(scope="module")
def page() -> str:
    return " ".join(PAGE.read_text().split())  # wherever its lines end


def test_every_word_of_the_node_is_explained(page: str) -> None:
    for verdict in Verdict:
        assert f"### {PNEUMONIA.name(verdict)}".casefold() in page.casefold()
        assert f"`{PNEUMONIA.word(verdict)}`" in page
    for reason in Reason:
        assert f"`{reason}`" in page
    for shape in SHAPES.values():
        assert str(shape.series_number) in page
    for reason in names.ABSTAIN_REASONS.values():
        assert f"| {reason} |" in page


def test_its_thresholds_are_the_profile_s(page: str) -> None:
    calibration = yaml.safe_load((ROOT / "weights" / "pneumonia-pediatric" / "calibration.yaml").read_text())
    point = calibration["operating_point"]
    limits = {name: point[name] for name in ("rule_out_below", "report_at")}
    low, high = wording.threshold_labels(replace(builders.profile().operating_point, **limits))
    assert f"{low} and {high}" in page
    odds = point["report_at"] / (1 - point["report_at"]) * 5 / 95  # Bayes, from one half to 5 in 100
    assert f"stands for about {100 * odds / (1 + odds):.0f} in 100" in page


def test_what_it_tells_of_heat_maps_and_outsiders_was_measured(page: str) -> None:
    metrics = json.loads((ROOT / "weights" / "pneumonia-pediatric" / "metrics.json").read_text())
    held_out = metrics["evaluations"]["kermany224, validation part"]
    maps, kinds = held_out["heatmaps"], held_out["outsiders"]["kinds"]
    assert f"{maps['cells']} x {maps['cells']} cells" in page
    for name in ("inside_chest", "opacity_found"):
        share, low, high = (round(100 * maps["rates"][name][part]) for part in ("value", "low", "high"))
        assert f"{share} % ({low} to {high})" in page
    assert maps["rates"]["peak_in_chest"]["value"] == 1.0
    mirrored = kinds["mirrored"]["verdicts"]
    assert f"on {mirrored['UNCERTAIN']} of {kinds['mirrored']['images']} mirrored ones" in page
    assert set(mirrored) == {"UNCERTAIN", "PNEUMONIA"}
    limits = " ".join(metrics["recipe"]["profile"]["limits"])
    share = "98.6 % (96.6 to 100)"
    assert share in limits and f"{share} of 207 adults" in page


def test_its_pictures_are_there_and_small() -> None:
    pages = (PAGE, ROOT / "README.md")
    linked = {page: re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()) for page in pages}
    named = {(page.parent / link).resolve() for page, links in linked.items() for link in links}
    seen = {path.name for path in named if path.name.startswith("viewer-")}
    assert {f"viewer-{word}-heatmap.png" for word in ("pneumonia", "normal", "uncertain")} <= seen
    for picture in named:
        assert picture.is_file(), picture
        assert not picture.name.startswith("viewer-") or picture.stat().st_size < MAX_PICTURE_KB * 1000
