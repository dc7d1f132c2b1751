"""`cxr-node bench` as a user runs it: a node of its own, real associations, figures that the page explains."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.bench import node as bench_node
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.tools import trial_node
from cxr_node.tools.trial_node import Recorder
from tests import builders
from tests.model.test_export import NO_TORCH

PAGE = Path(__file__).parent.parent / "docs" / "install.md"
IMAGES = 2


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One run: its JSON, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    spool = folder / "spool"
    there = {"name": "there", "address": "GONE@127.0.0.1:2", "send": ["report"]}
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(spool)}, "destinations": [there], "listen": {"port": 1}}))
    options = ["--config", str(file), "--images", str(IMAGES), "--size-mb", "0.5", "--batch", "1,2"]
    shown = CliRunner().invoke(app, ["bench", *options, "--out", str(folder / "out"), "--json"])
    assert shown.exit_code == 0, shown.output
    assert not spool.exists()  # never touched
    return json.loads(shown.stdout), folder / "out"


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Paths of all values of a JSON object; those of a list's items once."""
    if isinstance(value, dict) and path != "machine.versions":
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from leaves(value[0], f"{path}[]")
    else:
        yield path


def test_every_radiograph_is_in_the_figures(measured: tuple[dict[str, Any], Path]) -> None:
    told, _ = measured
    node, pipeline = told["node"], told["pipeline"]
    assert told["results"] == ["report"]  # what the configuration's destination asks for
    assert node["one_at_a_time"]["count"] == node["all_at_once"]["count"] == pipeline["images"] == IMAGES
    for spread in (node["one_at_a_time"], node["all_at_once"]):
        assert 0 < spread["p50_ms"] <= spread["p95_ms"] <= spread["p99_ms"] <= max(spread["each_ms"])
    assert node["images_per_s"] > 0
    assert [role["name"] for role in node["roles"]] == list(bench_node.ROLES)
    assert all(20 < role["peak_mib"] < 3000 for role in node["roles"])
    assert next(role for role in node["roles"] if role["name"] == "work")["cpu_s_per_1000_images"] > 0
    assert [each["size"] for each in pipeline["batches"]] == [1, 2]


def test_the_folder_has_the_same(measured: tuple[dict[str, Any], Path]) -> None:
    told, out = measured
    assert json.loads((out / "bench.json").read_text()) == told


def test_the_page_explains_every_field_of_the_json_and_no_other(measured: tuple[dict[str, Any], Path]) -> None:
    told, _ = measured
    section = PAGE.read_text().split("## How fast is this machine? cxr-node bench")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {field for row in rows for field in re.findall(r"`([^`]+)`", row)} == set(leaves(told))


def test_the_trial_keeps_what_is_configured_but_its_places(tmp_path: Path) -> None:
    given = loader.parse(
        {
            "listen": {"port": 104},
            "spool": {"path": "."},
            "model": {"threads": 1},
            "results": {"installation_id": "HERE"},
            "work": {"lease_s": 33},
            "audit": {"enabled": False},
            "destinations": [
                {"name": name, "address": f"PACS@10.0.0.{number}:104", "send": send, "commitment_wait_h": 24}
                for number, (name, send) in enumerate([("one", ["report"]), ("two", ["heatmap", "pdf"])])
            ],
        }
    )
    with contextlib.ExitStack() as stack:
        tried = loader.parse({"spool": {"path": str(tmp_path)}, **bench_node._settings(given, stack)})
    assert (tried.model, tried.results, tried.work, tried.wishes) == (
        given.model,
        given.results,
        given.work,
        given.wishes,
    )
    assert tried.audit.enabled is False
    assert [(to.name, to.send) for to in tried.destinations] == [(to.name, to.send) for to in given.destinations]
    assert {to.address.host for to in tried.destinations} == {"127.0.0.1"}
    assert tried.listen.port != 104
    assert all(to.commitment_wait_h is None for to in tried.destinations)


def test_an_installation_without_torch_is_measured(tmp_path: Path) -> None:
    options = ["--images", "1", "--size-mb", "0.5", "--batch", "1", "--profile", "pneumonia-pediatric"]
    command = [sys.executable, "-c", NO_TORCH, "bench", *options]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "OpenVINO" in done.stdout and "images/s sustained" in done.stdout
    assert list(tmp_path.iterdir()) == []  # nothing stays behind


def test_a_radiograph_without_an_answer_ends_the_measurement(tmp_path: Path) -> None:
    lateral = tmp_path / "lateral.dcm"
    lateral.write_bytes(builders.part10(builders.radiograph(ViewPosition="LL", PatientOrientation=["A", "F"])))
    with (
        Recorder(None) as pacs,
        trial_node.node(tmp_path, {"destinations": [{"name": "pacs", "address": str(pacs.address)}]}, "TEST") as node,
        pytest.raises(trial_node.TrialError, match="ended as REJECTED: view-not-frontal"),
    ):
        bench_node._answered(node, [lateral], lambda _: None)


def test_a_configuration_that_makes_no_result_says_so() -> None:
    without = SimpleNamespace(instance=None, deliveries=[])
    with pytest.raises(trial_node.TrialError, match="makes no result"):
        bench_node._turnaround([without])  # type: ignore[list-item]


def test_a_node_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(trial_node.TrialError, match="unknown key"),
        trial_node.node(tmp_path, {"work": {"nonesuch": 1}}, "TEST"),
    ):
        pass
