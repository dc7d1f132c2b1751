"""`cxr-node evaluate` as a user meets it: figures, page, two data sets, and one sentence for each mistake."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node.cli.node import app
from cxr_node.training.data import images
from cxr_node.training.data.profile_folder import deal, recipe_of
from cxr_node.training.measure import model_card
from tests.training import folders


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row | {"age": str(1 + place % 2)} for place, row in enumerate(folders.children(count=4, images=2))]
    return folders.manifest(tmp_path_factory.mktemp("data") / "hospital-a", rows)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.tree(tmp_path_factory.mktemp("data") / "hospital-b", each=5)


@pytest.fixture
def profile_folder(tmp_path: Path) -> Path:
    return folders.profile(tmp_path)


def evaluated(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


def refused(*arguments: object) -> str:
    """The one sentence of a command that must end with exit code 2."""
    result = evaluated(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    sentence = " ".join(result.output.split())
    assert sentence.count("cxr-node:") == 1
    return sentence


def test_everything_at_once(profile_folder: Path, data_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ["--external", other_folder, "--outsiders", other_folder, "--sample", 2, "--page", page]
    result = evaluated(profile_folder, "--data", data_folder, *options)
    assert result.exit_code == 0, result.output
    for word in ("can it be trusted?", "side by side", "by sublabel", "by age", "JPEG quality 30", "foreign images"):
        assert word in result.output
    kept = json.loads((profile_folder / "metrics.json").read_text("utf-8"))["evaluations"]
    assert set(kept) == {"hospital-a", "hospital-b"}
    assert (kept["hospital-a"]["reencoding"]["images"], kept["hospital-a"]["outsiders"]["all"]["images"]) == (2, 30)
    assert "## Measured: hospital-b" in (profile_folder / model_card.NAME).read_text("utf-8")
    check_page(page.read_text("utf-8"))


def check_page(text: str) -> None:
    assert "Research use only" in text
    for title in ("ROC", "Reliability", "Worst errors", "re-encoded", "not made for", "side by side"):
        assert title in text
    assert text.count("<svg") >= 7
    assert not re.search(r"""(src|href|url\()=?["']?(?!data:|#)[a-z./]""", text.replace("xlink:href", "href"))
    assert "#0101" not in text  # all stand-ins for colours were replaced


def test_json_is_one_object_with_all_intervals(profile_folder: Path, data_folder: Path, other_folder: Path) -> None:
    options = ["--external", other_folder, "--sample", 0, "--no-keep", "--json"]
    result = evaluated(profile_folder, "--data", data_folder, *options)
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert (measured["name"], measured["external"]["name"]) == ("hospital-a", "hospital-b")
    for one in (*measured["rates"].values(), *measured["external"]["rates"].values(), *measured["compared"].values()):
        assert one["low"] <= one["value"] <= one["high"]
    auc = measured["external"]["rates"]["auc"]["value"] - measured["rates"]["auc"]["value"]
    assert measured["compared"]["auc"]["value"] == pytest.approx(auc, abs=2e-4)
    assert "evaluations" not in json.loads((profile_folder / "metrics.json").read_text("utf-8"))


def test_the_same_folder_twice_differs_in_nothing(profile_folder: Path, data_folder: Path) -> None:
    result = evaluated(profile_folder, "--data", data_folder, "--external", data_folder, "--sample", 0, "--json")
    measured = json.loads(result.stdout)
    assert measured["external"]["name"] == "hospital-a (external)"
    assert all(one["value"] == 0.0 for one in measured["compared"].values())


def test_a_folder_that_does_not_exist_or_is_empty(profile_folder: Path, tmp_path: Path) -> None:
    assert "nowhere is not a folder" in refused(profile_folder, "--data", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no labelled image" in refused(profile_folder, "--data", tmp_path / "empty")


def test_one_class_only(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_folder / "NORMAL", tmp_path / "one" / "NORMAL")).parent
    assert "no image with the label 'PNEUMONIA'" in refused(profile_folder, "--data", copy)


def test_a_label_outside_the_recipe(profile_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(other_folder, tmp_path / "copy"))
    shutil.copytree(copy / "NORMAL", copy / "TUBERCULOSIS")
    assert "has the label 'TUBERCULOSIS'" in refused(profile_folder, "--data", copy)


def test_a_broken_image(profile_folder: Path, data_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(other_folder, tmp_path / "copy"))
    (copy / "NORMAL" / "3.png").write_bytes(b"no picture")
    assert "3.png is not a readable image" in refused(profile_folder, "--data", copy)
    assert "3.png is not a readable image" in refused(profile_folder, "--data", data_folder, "--external", copy)


def test_a_manifest_with_a_missing_file(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_folder, tmp_path / "copy"))
    with (copy / "manifest.csv").open(newline="") as lines:
        first = next(csv.DictReader(lines))["file"]
    (copy / first).unlink()
    assert "is listed but does not exist" in refused(profile_folder, "--data", copy)
    assert "has no column 'diagnosis'" in refused(profile_folder, "--data", data_folder, "--column", "diagnosis")


def test_a_profile_of_another_version_or_none_at_all(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    described = profile_folder / "profile.yaml"
    described.write_text(yaml.safe_dump(yaml.safe_load(described.read_text("utf-8")) | {"format": 7}), "utf-8")
    assert "is of format 7; this version reads format 1" in refused(profile_folder, "--data", data_folder)
    assert "cannot be read" in refused(tmp_path / "nowhere", "--data", data_folder)


def test_changed_weights_name_both_hashes(profile_folder: Path, data_folder: Path) -> None:
    path = profile_folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert len(re.findall(r"\b[0-9a-f]{64}\b", refused(profile_folder, "--data", data_folder))) == 2


def test_a_page_that_cannot_be_written(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "page.html"
    assert "there is no folder" in refused(profile_folder, "--data", data_folder, "--page", nowhere)


def test_predictions_stand_in_the_card(profile_folder: Path) -> None:
    path = profile_folder / "metrics.json"
    figure = {"value": 0.97, "low": 0.95, "high": 0.985}
    predicted = {"auc": figure | {"how": "context swap"}, "brier": figure | {"how": "trial", "measured": figure}}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"predicted": predicted}), "utf-8")
    model_card.write(profile_folder)
    written = (profile_folder / model_card.NAME).read_text("utf-8")
    assert "## Predicted for data that nobody here has seen" in written
    assert "| 0.970 (0.950 to 0.985) | not yet | context swap |" in written
    assert "| Brier score | 0.970 (0.950 to 0.985) | 0.970 (0.950 to 0.985) | trial |" in written


def test_the_edges_the_boxes_the_strata_and_a_second_profile(
    profile_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(data_folder, tmp_path / "hospital-c"))
    with (copy / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for place, row in enumerate(rows):
        row |= {"ward": ["east", "west"][place % 2], "boxes_10": "[[0, 0, 10, 10]]"}
    folders.manifest(copy, rows)
    second = folders.profile(tmp_path / "second")
    page = tmp_path / "page.html"
    options = ["--by", "ward", "--boxes", "boxes_10", "--against", second, "--sample", 0, "--padding", 3]
    told = evaluated(profile_folder, "--data", copy, *options, "--page", page)
    assert told.exit_code == 0, told.output
    for word in ("by ward", "radiologists' boxes", "edges elsewhere", "cut by 10.0%, top", "against "):
        assert word in told.output
    kept = json.loads((profile_folder / "metrics.json").read_text("utf-8"))["evaluations"]["hospital-c"]
    assert set(kept["subgroups"]["ward"]) == {"east", "west"}
    assert (kept["padding"]["images"], kept["boxes"]["images"]) == (3, sum(row["label"] == "PNEUMONIA" for row in rows))
    assert kept["paired"]["rates"]["auc"]["difference"]["value"] == 0.0  # both are the same weights
    assert "reencoding" not in kept
    text = page.read_text("utf-8")
    assert "Radiologists' boxes" in text and "its edges elsewhere" in text and "Against " in text
    card = (profile_folder / model_card.NAME).read_text("utf-8")
    assert "The film's edges moved (3 films in 12 ways)" in card


def test_words_of_ones_own_leave_other_rows_out(profile_folder: Path, tmp_path: Path) -> None:
    rows = folders.children(count=3, images=1)
    for row in rows:
        row["label"] = {"bacteria": "Opacity", "virus": "Other", "normal": "Clear"}[row["sublabel"]]
    folder = folders.manifest(tmp_path / "data", rows)
    words = ["--positive", "Opacity", "--negative", "Clear"]
    options = ["--sample", 0, "--no-keep", "--json"]
    two = json.loads(evaluated(profile_folder, "--data", folder, *words, *options).stdout)
    assert (two["images"], two["positives"]) == (6, 3)
    assert two["name"] == "data (label: Opacity against Clear)"
    three = json.loads(evaluated(profile_folder, "--data", folder, *words, "--negative", "Other", *options).stdout)
    assert (three["images"], three["positives"]) == (9, 3)
    listed = tmp_path / "some.csv"
    listed.write_text("\n".join((folder / "manifest.csv").read_text().splitlines()[:-1]) + "\n")
    three_words = [*words, "--negative", "Other"]
    some = json.loads(evaluated(profile_folder, "--data", folder, "--manifest", listed, *three_words, *options).stdout)
    assert (some["images"], some["name"]) == (8, "some.csv (label: Opacity against Clear or Other)")


def test_other_copies_of_the_films_of_one_part(profile_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_folder, tmp_path / "larger"))
    path, told = profile_folder / "metrics.json", ["--part", "calibration", "--sample", 0, "--no-keep", "--json"]
    options = ["--data", copy, "--parts-of", data_folder]
    assert "is not what the profile was trained on" in refused(profile_folder, *options)
    content = json.loads(path.read_text("utf-8"))
    items = images.read(data_folder, folders.CLASSES)
    content["training"]["fingerprint"] = images.fingerprint(items)
    path.write_text(json.dumps(content), "utf-8")
    measured = json.loads(evaluated(profile_folder, *options, *told).stdout)
    part = deal(items, recipe_of(profile_folder))["calibration"]
    assert (measured["images"], measured["name"]) == (len(part), "larger, calibration part")
    assert 0 < len(part) < len(items)
