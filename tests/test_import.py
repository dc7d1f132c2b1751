"""`cxr-node import` as a user meets it: weights in, profile out, 18 findings told; and two profiles side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cxr_node import pipeline
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.domain import Origin
from cxr_node.model.profile import Population
from cxr_node.model.torchxrayvision import LABELS
from cxr_node.outcome import Rejected, Reported
from tests import builders
from tests.model import xrv_states

RUNNER = CliRunner()
ORIGIN = Origin(calling_ae_title="MODALITY", peer_host="127.0.0.1", received_at=datetime(2025, 1, 2, tzinfo=UTC))
CONFIG = loader.parse({"spool": {"path": "."}})


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("import")
    torch.save(xrv_states.state(), folder / "state.pt")
    command = ["import", "torchxrayvision", str(folder / "state.pt"), "--out", str(folder / "adults")]
    shown = RUNNER.invoke(app, [*command, "--weights", "densenet121-res224-all"])
    assert shown.exit_code == 0, shown.output
    assert "18 findings" in shown.output
    return folder / "adults"


def settings(folder: Path, profile: Path) -> Path:
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(folder)}, "model": {"others": [str(profile)]}}))
    return file


def test_eighteen_findings_are_told_and_the_results_are_sound(profile: Path, tmp_path: Path) -> None:
    image = tmp_path / "adult.dcm"
    image.write_bytes(builders.part10(builders.radiograph(PatientAge="061Y", PatientBirthDate="")))
    command = ["classify", str(image), "--profile", str(profile), "--out", str(tmp_path / "out"), "--json"]
    shown = RUNNER.invoke(app, command)
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout.splitlines()[-1])
    assert set(answer["findings"]) == set(LABELS)
    assert (answer["scale"], answer["judged"]) == ("score", "Pneumonia")
    assert (answer["probability"], answer["distance"]) == (None, None)
    assert answer["verdict"] == ("PNEUMONIA" if answer["findings"]["Pneumonia"] >= 0.5 else "NORMAL")
    checked = RUNNER.invoke(app, ["verify", str(image), str(tmp_path / "out")])
    assert checked.exit_code == 0, checked.output
    objects = 2 if answer["verdict"] == "NORMAL" else 3  # which has no picture
    assert f"{objects} results, 1 sources, 0 flaws" in checked.output


def test_two_profiles_side_by_side(profile: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, age in enumerate(("003Y", "061Y", "011Y"), 1):
        image = builders.radiograph(number, PatientAge=age, PatientBirthDate="")
        (images / f"{age}.dcm").write_bytes(builders.part10(image))
    shown = RUNNER.invoke(app, ["classify", str(images), "-c", str(settings(tmp_path, profile)), "--json"])
    assert shown.exit_code == 0, shown.output
    answers = {Path(each["path"]).stem: each for each in map(json.loads, shown.stdout.splitlines())}
    assert answers["003Y"]["profile"] == "pneumonia-pediatric"
    assert answers["061Y"]["profile"] == "torchxrayvision-densenet121-res224-all"
    assert answers["011Y"]["reason"] == "age-outside-population"
    seen = RUNNER.invoke(app, ["check", "-c", str(settings(tmp_path, profile)), "--json"])
    lines = [json.loads(line) for line in seen.stdout.splitlines()]
    assert [line["ok"] for line in lines if line["subject"] == "weights"] == [True, True]


@pytest.mark.parametrize(
    ("age", "name"), [("003Y", "children"), ("017Y", "children"), ("018Y", "adults"), (None, "children")]
)
def test_the_age_chooses_who_answers(age: str | None, name: str) -> None:
    def predictor(name: str, *ages: float) -> builders.FixedPredictor:
        population = Population(age_years=(ages[0], ages[1]), description="test")
        return builders.FixedPredictor(profile=builders.profile(name=name, population=population))

    panel = pipeline.ProfileRouter((predictor("children", 1, 17), predictor("adults", 18, 120)))
    source = builders.part10(builders.radiograph(PatientAge=age, PatientBirthDate=None))
    outcome = pipeline.process(source, ORIGIN, panel, CONFIG)
    assert isinstance(outcome, Reported)
    assert outcome.finding.identity.profile == name
    nobody = replace(panel, predictors=(predictor("children", 1, 2), predictor("adults", 19, 120)))
    if age is not None:
        assert isinstance(pipeline.process(source, ORIGIN, nobody, CONFIG), Rejected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.nn.Linear(1, 1), "torch.save(torch.load("),
        ({"a": torch.zeros(1)}, "is missing"),
        (b"", "is no state dict"),
        (b"junk", "is no state dict"),
        (b"}q", "is no state dict"),
    ],
)
def test_bad_weights_are_one_sentence_and_exit_2(tmp_path: Path, content: object, words: str) -> None:
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    command = ["import", "torchxrayvision", str(file), "--out", str(tmp_path / "out")]
    shown = RUNNER.invoke(app, [*command, "--weights", "densenet121-res224-all"])
    assert shown.exit_code == 2
    assert words in shown.output.replace("\n", "")
    assert "Traceback" not in shown.output
