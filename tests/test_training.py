"""Bad input of the training commands as a user meets it: one sentence, exit code 2, before any training starts."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node.cli.app import ORDER
from cxr_node.cli.node import app
from tests.training import folders

RUNNER = CliRunner()
LANDED = Path(__file__).parents[1] / "weights" / "pneumonia-pediatric"


def train(data: Path, tmp_path: Path) -> Result:
    recipe = folders.small_recipe(tmp_path)
    return RUNNER.invoke(app, ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "out")])


def require_one_sentence(shown: Result, said: str, code: int = 2) -> None:
    assert shown.exit_code == code, shown.output
    text = "".join(shown.output.split())  # the console wraps where it likes
    assert "".join(said.split()) in text
    assert text.count("cxr-node:") == 1
    assert "Traceback" not in text


def nothing(folder: Path) -> None:
    folder.mkdir()


def one_class(folder: Path) -> None:
    folders.tree(folder)
    shutil.rmtree(folder / "NORMAL")


def other_label(folder: Path) -> None:
    folders.tree(folder)
    folders.draw(folder / "COVID" / "0.png", opacity=True, seed=1)


def broken_picture(folder: Path) -> None:
    folders.tree(folder)
    (folder / "NORMAL" / "3.png").write_bytes(b"\x89PNG broken")


def broken_dicom(folder: Path) -> None:
    folders.tree(folder)
    (folder / "NORMAL" / "3.dcm").write_bytes(b"broken")


def missing_file(folder: Path) -> None:
    rows = folders.children(count=4)
    folders.manifest(folder, rows)
    (folder / rows[5]["file"]).unlink()


def no_label_column(folder: Path) -> None:
    folders.manifest(folder, [{"file": "0.png", "class": "NORMAL"}])


def no_csv(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.csv").write_bytes(b"\xff\xfe\x00rubbish")


def empty_manifest(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.csv").write_text("file,label\n")


def short_row(folder: Path) -> None:
    folders.manifest(folder, folders.children(count=4))
    with (folder / "manifest.csv").open("a") as lines:
        lines.write("alone\n")


def too_few(folder: Path) -> None:
    folders.tree(folder, each=2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nothing, "has no labelled image"),
        (one_class, "has no image with the label 'NORMAL'"),
        (other_label, "has the label 'COVID'; known are NORMAL, PNEUMONIA"),
        (broken_picture, "3.png is not a readable image"),
        (broken_dicom, "3.dcm is not a readable image"),
        (missing_file, "is listed but does not exist"),
        (no_label_column, "has no column 'label'"),
        (no_csv, "is not a readable CSV file"),
        (empty_manifest, "lists no image"),
        (short_row, "has a row without a label"),
        (too_few, "are too few"),
        (lambda folder: None, "is not a folder"),
    ],
    ids=lambda value: getattr(value, "__name__", "said"),
)
def test_bad_data_is_one_sentence_before_training(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    spoil(tmp_path / "data")
    require_one_sentence(train(tmp_path / "data", tmp_path), said)
    assert not (tmp_path / "out" / "curves.jsonl").exists()


def test_a_class_that_no_patient_is_left_for_is_named(tmp_path: Path) -> None:
    rows = [row for row in folders.children(count=6, images=1) if row["sublabel"] != "virus" or "child0" in row["file"]]
    path = folders.small_recipe(tmp_path)
    content = yaml.safe_load(path.read_text("utf-8"))
    content["data"] |= {
        "column": "sublabel",
        "classes": {"normal": "NORMAL", "bacteria": "PNEUMONIA", "virus": "PNEUMONIA"},
    }
    data = folders.manifest(tmp_path / "data", rows)
    said = set()
    for seed in range(8):  # in some deals the only child is held out
        path.write_text(yaml.safe_dump(content | {"seed": seed, "network": {"architecture": "nonesuch"}}), "utf-8")
        shown = RUNNER.invoke(app, ["train", str(path), "--data", str(data), "--out", str(tmp_path / "out")])
        said |= {(shown.exit_code, "'virus'islefttotrainon" in "".join(shown.output.split()))}
    assert (2, True) in said
    assert (2, False) not in said


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
@pytest.mark.parametrize("part", ["profile", "recipe"])
def test_a_profile_of_another_version_is_one_sentence(command: str, part: str, tmp_path: Path) -> None:
    profile = Path(shutil.copytree(LANDED, tmp_path / "profile"))
    if part == "profile":
        described = yaml.safe_load((profile / "profile.yaml").read_text("utf-8"))
        (profile / "profile.yaml").write_text(yaml.safe_dump(described | {"format": 99, "more": 1}), "utf-8")
    else:
        metrics = (profile / "metrics.json").read_text("utf-8").replace('"threads"', '"strings"', 1)
        (profile / "metrics.json").write_text(metrics, "utf-8")
    shown = RUNNER.invoke(app, [command, str(profile), "--data", str(folders.tree(tmp_path / "data"))])
    said = "is of format 99; this version reads format 1" if part == "profile" else "holds a recipe of another version"
    require_one_sentence(shown, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"seed: [", "is not YAML"), (b"\xff\xfe\x80", "is not YAML"), (b"- seed", "is no recipe"), (b"", "is no recipe")],
)
def test_a_wrong_recipe_is_a_wrong_configuration(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    shown = RUNNER.invoke(app, ["train", str(tmp_path / "recipe.yaml"), *arguments])
    require_one_sentence(shown, said, code=78)


def test_an_output_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file", "utf-8")
    require_one_sentence(train(folders.tree(tmp_path / "data"), tmp_path), "out cannot be written: File exists")


def test_metrics_that_no_training_wrote_are_one_sentence(tmp_path: Path) -> None:
    profile = folders.profile(tmp_path)
    (profile / "metrics.json").write_text("[1]", "utf-8")
    shown = RUNNER.invoke(app, ["evaluate", str(profile), "--data", str(tmp_path)])
    require_one_sentence(shown, "was not written by cxr-node train")


def test_weights_with_one_byte_changed_name_both_hashes(tmp_path: Path) -> None:
    profile = folders.profile(tmp_path)
    weights = profile / "weights.safetensors"
    released = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    shown = RUNNER.invoke(app, ["evaluate", str(profile), "--data", str(folders.tree(tmp_path / "data"))])
    require_one_sentence(shown, f"sha256 is {hashlib.sha256(weights.read_bytes()).hexdigest()}, ")
    require_one_sentence(shown, f"profile.yaml says {released}")


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    shown = RUNNER.invoke(app, ["--help"])
    assert shown.exit_code == 0, shown.output
    places = [re.search(rf"^│ {name} ", shown.output, re.MULTILINE) for name in ORDER]
    assert [place.start() for place in places if place] == sorted(place.start() for place in places if place)
    assert all(places)
    ours = [each for each in app.registered_commands if each.callback.__module__.startswith("cxr_node.")]
    groups = {"user"}
    assert {each.name or each.callback.__name__ for each in ours} | groups == set(ORDER)  # other tests register more
