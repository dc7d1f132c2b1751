"""`calibrate --from-agreement` on a ledger: what it promises, shows and writes, and that serving then answers so."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node.assurance import agreement, site_effect
from cxr_node.assurance.agreement import Case
from cxr_node.assurance.report_rules import Said
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.domain import AbstainReason, Prediction, Verdict
from cxr_node.model import profile
from cxr_node.model.decision import decide
from cxr_node.model.site_calibration import at_site
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.resources import bundled
from cxr_node.wiring import profiles
from tests.assurance.studies import accession, many

RELEASED = profile.load(bundled("weights") / "pneumonia-pediatric")
NAME = f"{RELEASED.name} {RELEASED.version}"
STUDIES = 700
WISH = ("--ppv", "0.8", "--npv", "0.85")


def rows() -> tuple[list[dict[str, Any]], list[bool]]:
    """A site where the profile is too sure; every twentieth image is unlike the training data."""
    dice = np.random.default_rng(5)
    positive = dice.random(STUDIES) < 0.35
    logit = dice.normal(np.where(positive, 2.4, -2.4), 1.4) + 2.6
    probability = 1.0 / (1.0 + np.exp(-logit))
    found = []
    for number, value in enumerate(probability.tolist()):
        distance = 9.0 if number % 20 == 0 else 0.1
        said = decide(
            Prediction(probability={"PNEUMONIA": value}, spread=0.0, distance=distance), RELEASED.operating_point
        )
        word = "PNEUMONIA" if said.verdict is Verdict.POSITIVE else said.verdict.value
        found.append({"verdict": word, "abstain_reason": said.abstain_reason, "probability": value, "profile": NAME})
    return found, positive.tolist()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "spool").mkdir()
    answers, positive = rows()
    ledger = Ledger.open(folder / "spool")
    many(ledger, answers, ledger.now() - timedelta(days=30))
    ledger.close()
    said = [f"{accession(number)},{int(word)}" for number, word in enumerate(positive, 1)]
    (folder / "reports.csv").write_text("\n".join(["accession,label", *said[: STUDIES - 100]]))
    config = folder / "node.yaml"
    config.write_text(yaml.safe_dump({"spool": {"path": str(folder / "spool")}}))
    assert run(config, "agreement", str(folder / "reports.csv")).exit_code == 0
    return config


def run(config: Path, command: str, *more: str) -> Result:
    return CliRunner().invoke(app, [command, "-c", str(config), *more])


def calibrate(config: Path, *more: str) -> Result:
    return run(config, "calibrate", RELEASED.name, "--from-agreement", *more)


def test_it_is_fitted_shown_written_and_switched_on_by_one_line(node: Path, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    done = calibrate(node, *WISH, "--out", str(file), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    made, effect = said["calibration"], said["effect"]
    assert made["guarantee"]["positive_patients"] + made["guarantee"]["negative_patients"] == STUDIES - 100
    assert made["guarantee"]["prevalence"] == pytest.approx(0.35, abs=0.05)
    assert effect["after"]["ppv"]["value"] >= 0.8 and effect["after"]["ppv"]["value"] > effect["before"]["ppv"]["value"]
    assert effect["changed"] > 0 and sum(sum(each.values()) for each in effect["images"].values()) == STUDIES
    on = loader.parse(yaml.safe_load(node.read_text()) | {"model": {"site_calibrations": [str(file)]}})
    there = next(each for each in profiles(on) if each.name == RELEASED.name)
    assert there.site is not None
    answers, _ = rows()
    now = [_served(there, answer) for answer in answers]
    counts = {(was["verdict"], then.name) for was, then in zip(answers, now, strict=True)}
    assert {("PNEUMONIA", "POSITIVE"), ("NORMAL", "NEGATIVE")} <= counts
    table = {
        (was, then): sum(
            _name(each) == was and verdict.name == then for each, verdict in zip(answers, now, strict=True)
        )
        for was in effect["images"]
        for then in effect["images"]
    }
    assert {(was, then): number for was, row in effect["images"].items() for then, number in row.items()} == table


def _name(answer: dict[str, Any]) -> str:
    return Verdict.of_word(answer["verdict"]).name


def _served(there: profile.Profile, answer: dict[str, Any]) -> Verdict:
    """What the profile with the site calibration says of the same image."""
    assert there.site is not None
    unlike = answer["abstain_reason"] is AbstainReason.UNLIKE_TRAINING_DATA
    prediction = Prediction(
        probability={"PNEUMONIA": at_site(answer["probability"], *there.site)},
        spread=0.0,
        distance=9.0 if unlike else 0.1,
    )
    return decide(prediction, there.operating_point).verdict


def test_without_out_it_is_only_shown(node: Path) -> None:
    done = calibrate(node, *WISH)
    assert done.exit_code == 0, done.output
    assert "nothing is written" in done.stdout and "would be answered otherwise" in done.stdout
    assert "promise: PPV at least 0.8" in done.stdout


def test_a_second_calibration_starts_from_the_released_probability(node: Path, tmp_path: Path) -> None:
    """Answers under the first site calibration count, by the way back."""
    file = tmp_path / "site.yaml"
    first = json.loads(calibrate(node, *WISH, "--out", str(file), "--json").stdout)["calibration"]
    on = loader.parse(yaml.safe_load(node.read_text()) | {"model": {"site_calibrations": [str(file)]}})
    there = next(each for each in profiles(on) if each.name == RELEASED.name)
    spool = tmp_path / "spool"
    spool.mkdir()
    answers, positive = rows()
    moved = [
        answer
        | {"probability": at_site(answer["probability"], *there.site), "profile": f"{there.name} {there.version}"}
        for answer in answers
        if there.site
    ]
    ledger = Ledger.open(spool)
    many(ledger, moved, ledger.now() - timedelta(days=30))
    ledger.close()
    (tmp_path / "reports.csv").write_text(
        "\n".join(["accession,label", *(f"{accession(n)},{int(word)}" for n, word in enumerate(positive[:600], 1))])
    )
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"spool": {"path": str(spool)}, "model": {"site_calibrations": [str(file)]}}))
    assert run(config, "agreement", str(tmp_path / "reports.csv")).exit_code == 0
    second = json.loads(calibrate(config, *WISH, "--json").stdout)
    assert second["others"] == 0
    for name in ("slope", "intercept", "report_at", "rule_out_below"):
        assert second["calibration"][name] == pytest.approx(first[name], abs=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "--ppv and --npv"),
        (("--ppv", "0.995", "--npv", "0.995"), "cannot be promised"),
        ((*WISH, "--since", "1d"), "no study with a stated word"),
        ((*WISH, "--data", "."), "takes no --data"),
    ],
)
def test_what_cannot_be_done_is_said(node: Path, more: tuple[str, ...], words: str) -> None:
    done = calibrate(node, *more)
    assert done.exit_code == 2 and words in done.output.replace("\n", " "), done.output


def test_another_version_is_left_out(node: Path) -> None:
    scored = site_effect.Scored(RELEASED.name, {"0.9": (1.0, 0.0)})
    ledger = Ledger.open(loader.load(node).spool.path)
    images = readings.answered(ledger, ledger.now() - timedelta(days=90))[0]
    ledger.close()
    case = Case(image=images[0], images=images, said=Said.PRESENT, verdict=images[0].verdict)
    found = site_effect.labelled([case], scored)
    assert found.others == 1 and not found.probability
    assert agreement.deciding(images) == images[0]
