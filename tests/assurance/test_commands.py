"""The commands: exit status, lines for people, JSON for programs."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from benchmarks import drift as simulated
from benchmarks.drift import Site
from cxr_node import wiring
from cxr_node.assurance import drift
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.node.ledger import films
from cxr_node.node.ledger.films import Film
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.web.monitoring import drifts
from cxr_node.web.monitoring.metrics import Exposition
from cxr_node.web.monitoring.watch import Watch
from tests.dicom import studies
from tests.node import workplace

np = pytest.importorskip("numpy")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "node.yaml"
    content = {"spool": {"path": str(tmp_path / "spool"), "min_free_mib": 0}, "model": {"others": []}}
    file.write_text(yaml.safe_dump(content))
    made = loader.load(file)
    Ledger.of_node(made).close()
    return made


def run(config: Config, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--config", str(config.spool.path.parent / "node.yaml")])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Film]]:
    """Films that the ledger is said to have, by what happened."""
    reference = simulated.referred(simulated.drawn(Site(), 2300, np.random.default_rng(1)))
    newer = {
        "same": simulated.drawn(Site(), 400, np.random.default_rng(2), first=5000),
        "worse": simulated.drawn(Site(abstained=0.4), 400, np.random.default_rng(2), first=5000),
        "now": [],
    }
    monkeypatch.setattr(films, "fix_reference", lambda *_: reference)
    monkeypatch.setattr(films, "reference", lambda *_: reference)
    monkeypatch.setattr(films, "since", lambda *_: newer["now"])
    return newer


def test_drift_says_so_and_exits_1(config: Config, seen: dict[str, list[Film]], tmp_path: Path) -> None:
    seen["now"] = seen["same"]
    fine = run(config, "drift")
    assert fine.exit_code == 0 and "no change" in fine.output, fine.output
    seen["now"] = seen["worse"]
    found = run(config, "drift")
    assert found.exit_code == 1 and "CHANGED: abstention of ROOM_1" in found.output
    told = json.loads(run(config, "drift", "--json").output)
    assert told["drift"]["begun"] and {"films", "least", "adjusted"} <= set(told["drift"]["figures"][0])
    readings = tmp_path / "readings.csv"
    readings.write_text("answer,label\n" + "PNEUMONIA,present\nPNEUMONIA,absent\n" * 60)
    seen["now"] = seen["same"]
    fallen = run(config, "drift", "--readings", str(readings))
    assert fallen.exit_code == 1 and "IT HAS FALLEN" in fallen.output
    readings.write_text("answer,label\nPNEUMONIA,perhaps\n")
    assert run(config, "drift", "--readings", str(readings)).exit_code == 2


def test_before_the_reference_it_counts(config: Config) -> None:
    found = run(config, "drift")
    assert found.exit_code == 0 and "0 of the 2000 films of its reference so far" in found.output


def test_page_metrics_and_alerts_say_the_same(config: Config, seen: dict[str, list[Film]]) -> None:
    seen["now"] = seen["worse"]
    with closing(Ledger.of_node(config)) as ledger:
        found = drifts.look(config, ledger)
        (name,) = found
        assert isinstance(found[name], drift.Drift)
        text = Exposition(config, lambda: ledger).read().decode()
        assert f'cxr_node_drift{{profile="{name}"}} 1.0' in text
        assert f'cxr_node_drift_pvalue{{figure="abstention",profile="{name}",sender="ROOM_1"}}' in text
        assert Watch(config, lambda: ledger).look(ledger.now()).drifts == {name: "abstention of ROOM_1"}


def test_accept_writes_a_page(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "page.pdf"
    found = run(config, "accept", "--out", str(file))
    assert found.exit_code == 0 and "0 studies, 0 images, 0 technical faults" in found.output
    assert file.read_bytes().startswith(b"%PDF")
    told = json.loads(run(config, "accept", "--json").output)
    (profile,) = wiring.profiles(config)
    assert told["profiles"][0]["weights_sha256"] == profile.weights_sha256
    assert run(config, "accept", "--out", str(tmp_path / "no" / "page.pdf")).exit_code == 2


def test_the_log_is_written_and_checked(config: Config, tmp_path: Path) -> None:
    workplace.receive(config, 1, 2)
    file = tmp_path / "log.jsonl"
    written = run(config, "export-log", str(file), "--from", "1d", "--json")
    checked = run(config, "export-log", str(file), "--verify", "--json")
    assert written.exit_code == checked.exit_code == 0
    assert json.loads(written.output) == json.loads(checked.output)
    assert run(config, "export-log", str(file)).exit_code == 2, "it is there"
    file.write_text(file.read_text().replace("MODALITY", "MODALITX"))
    assert run(config, "export-log", str(file), "--verify").exit_code == 2


@pytest.mark.whole
def test_replay_of_what_classify_has_written(config: Config, tmp_path: Path) -> None:
    image = tmp_path / "image.dcm"
    image.write_bytes(studies.source(1))
    assert run(config, "replay", str(image)).exit_code == 1, "no result of this node"
    assert run(config, "replay", str(tmp_path / "none.dcm")).exit_code == 2
