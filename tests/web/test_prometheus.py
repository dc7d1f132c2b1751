"""Rules and dashboard for sites with Prometheus: well formed, they cry when they should, and name what is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cxr_node.web.monitoring.alerts import Rule
from cxr_node.web.monitoring.metrics import Exposition
from tests.web.ledgers import Node
from tests.web.test_metrics import counted, parsed, worked

CONFIG = Path(__file__).parents[2] / "config"
RULES = CONFIG / "prometheus" / "alerts.yaml"
DASHBOARD = CONFIG / "grafana" / "cxr-node.json"
_ALSO_CALLED = {
    "CxrNodeResultWaiting": "CxrNodeWaiting",
    "CxrNodeStudyWaiting": "CxrNodeWaiting",
    "CxrNodeStudyFailed": "CxrNodeDead",
}
"""Several rules of Prometheus where ours has several subjects."""
__all__ = ["worked"]


@pytest.fixture(scope="module")
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: install the package prometheus")
    return program


def run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, cwd=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_checks_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", RULES)


def test_each_rule_cries_when_it_should(promtool: str) -> None:
    run(promtool, "test", "rules", "alerts_test.yaml", "shares_test.yaml")


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_each_rule_has_a_test_and_each_of_ours_a_rule() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    tested = {
        each["alertname"]
        for file in RULES.parent.glob("*_test.yaml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for each in test["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert tested == alerts
    ours = {f"CxrNode{''.join(word.capitalize() for word in rule.split('-'))}" for rule in Rule}
    assert {_ALSO_CALLED.get(name, name) for name in alerts} == ours | {"CxrNodeScrapeErrors"}


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_every_metric_that_is_asked_for_is_exported(worked: Node) -> None:
    counted(worked.config.spool.path)
    worked.report()
    worked.deliver()
    exported = {name for name, _ in parsed(Exposition(worked.config, lambda: worked.ledger).read())}
    asked = {name for expression in expressions() for name in re.findall(r"\bcxr_node_[a-z_]+", expression)}
    assert len(asked) > 15
    assert asked - exported == set()


def test_every_recorded_series_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for expression in expressions() for name in re.findall(r"\bcxr_node:[a-z_:0-9]+", expression)}
    assert asked == recorded
