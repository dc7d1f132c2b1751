"""What operators see of worklists: `check` asks the manager, `status` counts items, `trace` tells of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.errors import ConfigError
from tests.node import peers, performer, workplace
from tests.node.performer import about, performing
from tests.node.ups_manager import CODE, UpsManager, item_uid, listening

RUNNER = CliRunner()
OTHER = "1.2.840.10008.5.1.4.34.6.1"
"""UPS Push."""


def written(folder: Path, config: Any) -> str:
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(by_alias=True, exclude_defaults=True))))
    return str(file)


def said(*arguments: str) -> str:
    shown = RUNNER.invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    return " ".join(shown.output.split())


def test_status_and_trace_tell_of_an_item(tmp_path: Path) -> None:
    manager = UpsManager()
    manager.add(about(1))
    manager.add(about(2))
    with listening(manager) as address, performing(performer.config(tmp_path / "spool", address)) as node:
        manager.shelf = performer.shelf(node.config)
        workplace.receive(node.config, 1)
        node.run()
        file = written(tmp_path, node.config)
        status = said("status", "-c", file)
        assert f"worklist orders ({address}): 1 CLAIMED, 1 COMPLETED" in status
        told = json.loads(RUNNER.invoke(app, ["status", "-c", file, "--json"]).stdout)["worklists"]["orders"]
        assert (told["items"]["COMPLETED"], told["items"]["CANCELING"], told["down_since"]) == (1, 0, None)
        transaction = manager.items[item_uid(1)].transaction
        for key in (item_uid(1), f"item={item_uid(1)}", transaction, "1.2.1", "1.2.1.1.1"):
            trace = said("trace", "-c", file, key)
            assert f"{item_uid(1)} COMPLETED of worklist orders" in trace, key
            assert f"transaction {transaction}" in trace
            assert f"worklist orders: item {item_uid(1)} COMPLETED" in trace
        waits = said("trace", "-c", file, item_uid(2))
        assert f"work item {item_uid(2)} CLAIMED of worklist orders" in waits, "its image never came"
        (line,) = RUNNER.invoke(app, ["trace", "-c", file, item_uid(2), "--json"]).stdout.splitlines()
        assert json.loads(line)["work_items"][0]["state"] == "CLAIMED"
        (line,) = RUNNER.invoke(app, ["trace", "-c", file, item_uid(1), "--json"]).stdout.splitlines()
        assert json.loads(line)["work_items"][0]["workitem_uid"] == item_uid(1)
        without = written(tmp_path, node.config.model_copy(update={"worklists": ()}))
        assert "worklist orders is not configured, and nobody ends its items: 1 CLAIMED" in said(
            "status", "-c", without
        )


def test_status_says_that_a_manager_is_down(tmp_path: Path) -> None:
    with performing(performer.config(tmp_path / "spool", peers.nobody())) as node:
        node.run(1)
        file = written(tmp_path, node.config)
    assert "no item yet; has been down since" in said("status", "-c", file)
    shown = RUNNER.invoke(app, ["status", "-c", file, "--fail-on", "down"])
    assert shown.exit_code == 1
    assert shown.stdout.startswith("FAIL down: orders has not answered for ")


@pytest.mark.parametrize(
    ("classes", "sentence"), [((), "takes UPS Pull"), ((OTHER,), "accepts none of our SOP Classes")]
)
def test_check_asks_the_manager(tmp_path: Path, classes: tuple[str, ...], sentence: str) -> None:
    manager = UpsManager()
    with listening(manager, *classes) as address:
        content = {
            "spool": {"path": str(tmp_path / "spool"), "min_free_mib": 1},
            "listen": {"port": 0},
            "destinations": [{"name": "pacs", "address": str(peers.nobody())}],
            "worklists": [{"name": "orders", "address": str(address), "workitem_code": CODE}],
        }
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(content))
        shown = RUNNER.invoke(app, ["check", "--json", "-c", str(tmp_path / "node.yaml")])
    lines = {line["subject"]: line for line in map(json.loads, shown.stdout.splitlines())}
    assert sentence in lines["worklist orders"]["sentence"]
    assert lines["worklist orders"]["ok"] is (not classes)


@pytest.mark.parametrize(
    ("worklist", "sentence"),
    [
        (
            {"workitem_code": "CXR-AI"},
            "worklists.orders.workitem_code: 'CXR-AI' is no code; write VALUE^SCHEME^MEANING",
        ),
        ({"workitem_code": "A*^99RIS^x\\y"}, "worklists.orders.workitem_code.meaning:"),
        ({"workitem_code": "CXR*^99RIS^x"}, "worklists.orders.workitem_code.value:"),
        ({"workitem_code": "12345678901234567^99RIS^x"}, "worklists.orders.workitem_code.value:"),
        ({"name": "pacs"}, "worklists: there are two of the name 'pacs'"),
        ({"retrieve_from": "there"}, "worklists.orders.retrieve_from: there is no destination of kind dicom"),
        ({"images_within_min": 90}, "images_within_min must not be more than done_within_min"),
        ({"kind": "mwl"}, "kind 'mwl' is unknown"),
        ({"claim_max": 0}, "worklists.orders.claim_max:"),
    ],
)
def test_a_mistake_is_told_with_its_path(worklist: dict[str, Any], sentence: str) -> None:
    pulled = {"name": "orders", "address": "RIS@127.0.0.1:104", "workitem_code": CODE} | worklist
    pacs = {"name": "pacs", "address": "PACS@127.0.0.1:104"}
    with pytest.raises(ConfigError) as raised:
        loader.parse({"spool": {"path": "x"}, "destinations": [pacs], "worklists": [pulled]})
    assert any(sentence in line for line in raised.value.mistakes), raised.value.mistakes


def test_a_worklist_without_an_archive_for_its_reports_is_refused() -> None:
    pulled = {"name": "orders", "address": "RIS@127.0.0.1:104", "workitem_code": CODE}
    pacs = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": ["heatmap"]}
    with pytest.raises(ConfigError, match="no archive is sent report or measurements"):
        loader.parse({"spool": {"path": "x"}, "destinations": [pacs], "worklists": [pulled]})
