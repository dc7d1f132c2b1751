"""What an operator sees of studies that are reported as one: trace, status, list, metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from cxr_node.cli import ledger_tables, study_tables
from cxr_node.cli.node import app
from cxr_node.domain import PNEUMONIA
from cxr_node.node.ledger import browse, holds, listing, operator_moves, queries, status
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import StudyState
from cxr_node.node.ledger.study_stories import MadeOf, StudyRow
from cxr_node.node.process.supervisor import Presence
from tests.node import ledgers
from tests.node.test_studies import PACS, QUIET_S, WARD, Node, node

STUDY = ledgers.reference(1).study_instance_uid
TITLES = {"pacs": "PACS", "ward": "WARD"}
TARGETS = {"test": PNEUMONIA}
__all__ = ["node"]


def told(node: Node, key: str = STUDY) -> tuple[StudyRow, list[Story]]:
    with Presence(node.config.spool.path, "work") as present:
        present.ready()
        found = queries.trace(node.ledger, key, TITLES)
        ((study, stories),) = status.told(node.ledger, found, node.config.spool.path, TITLES)
    assert study is not None
    return study, stories


def shown(node: Node) -> str:
    """What `trace` prints of the study."""
    study, stories = told(node)
    console = Console(width=250)
    with console.capture() as captured:
        console.print(study_tables.study(study, stories, TARGETS))
        for story in stories:
            console.print(ledger_tables.story(story, TARGETS, study))
    return captured.get()


def reported(node: Node, *numbers: int) -> None:
    for number in numbers:
        node.comes(number)
        node.works()
    node.clock.forward(QUIET_S)
    assert node.works() == 1


def test_an_image_waits_for_its_study_not_for_a_destination(node: Node) -> None:
    node.comes(1)
    node.works()
    study, (story,) = told(node, "1.2.1.1.1")
    assert study.state is StudyState.WAITING
    assert study.waits_since == node.clock()
    assert study.why == "ripe at 12:00:15 UTC"
    assert story.instance.why == "waits for its study: ripe at 12:00:15 UTC"
    node.comes(2)
    assert told(node)[0].why == "ripe at 12:00:15 UTC; images of it that are not judged yet: 1"
    node.works()
    node.comes(3, content="lateral")
    node.works()
    study, stories = told(node)
    assert study.so_far == MadeOf(analysed=2, listed=1, failed=0)
    assert [story.instance.why for story in stories[2:]] == [None], "a lateral has its answer"
    text = shown(node)
    assert text.index("WAITING") < text.index("#1"), "the study comes first"
    assert "2 analysed, 1 listed" in text
    node.clock.forward(QUIET_S)
    assert told(node)[0].why == "ripe since 12:00:15 UTC"


def test_a_study_that_nobody_works_at_says_so(node: Node) -> None:
    node.comes(1)
    node.works()
    found = queries.trace(node.ledger, "#1", TITLES)
    ((study, _),) = status.told(node.ledger, found, node.config.spool.path, TITLES)
    assert study is not None
    assert study.why == "work does not run; ripe at 12:00:15 UTC"


def test_reports_replace_each_other_and_say_where_they_went(node: Node) -> None:
    reported(node, 1)
    node.due()
    reported(node, 2)
    holds.hold(node.ledger, "pacs", "olga")
    study, stories = told(node)
    first, second = study.reports
    assert (first.number, first.replaces, first.replaced_by) == (1, (), 2)
    assert (second.number, second.replaces, second.replaced_by) == (2, (1,), None)
    assert (first.made_of.analysed, second.made_of.analysed) == (1, 2)
    assert {first.verdict, second.verdict} == {"PNEUMONIA"}
    assert [each.kind for each in second.documents] == ["report", "measurements"]
    assert [one.state.value for each in first.documents for one in each.deliveries] == ["DELIVERED"] * 2
    waiting = [one for each in second.documents for one in each.deliveries]
    assert all("pacs is held" in (one.why or "") for one in waiting)
    assert {one.id for one in waiting} <= {one.id for story in stories for one in story.deliveries}
    text = shown(node)
    assert text.count("report 2: report") == 1, "said of the study, and not of each image again"
    assert "replaced by report 2" in text and "replaces report 1" in text
    assert all(each.sop_instance_uid in text for each in (*first.documents, *second.documents))
    (line,) = (line for line in text.splitlines() if "replaces report 1" in line)
    assert "PNEUMONIA SUSPECTED" in line and "of 2 analysed" in line


def test_judged_again_with_the_same_answer_it_is_the_same_report(node: Node) -> None:
    reported(node, 1)
    node.comes(2, content="scout")
    node.works()
    operator_moves.rejudge(node.ledger, [1], by="anna")
    node.works()
    study, _ = told(node)
    assert [(each.number, each.replaced_by) for each in study.reports] == [(1, None)]


def test_a_study_that_failed_says_what_to_type(node: Node) -> None:
    node.comes(1)
    node.works()
    node.fault = ValueError("a bug")
    for attempt in range(node.config.work.max_attempts):
        node.clock.forward(60)
        node.works()
        if attempt == 0:
            assert told(node)[0].why == "tried 1 times, trying again at 12:01:10 UTC"
    study, _ = told(node)
    assert study.state is StudyState.FAILED
    assert study.why == f"no report of it could be made; `cxr-node retry {STUDY}` tries again"
    seen = status.look(node.ledger, node.config)
    assert seen.studies.failed == 1
    assert "dead: 1 studies are FAILED (cxr-node list --study FAILED)" in status.raised(status.parse("dead"), seen)
    node.fault = None
    ledgers.retried(node.ledger, STUDY, "pacs")
    node.works()
    assert told(node)[0].why is None
    assert status.look(node.ledger, node.config).studies.failed == 0


def test_a_study_of_which_nothing_is_said_has_no_report(node: Node) -> None:
    node.comes(1, content="lateral")
    node.works()
    node.clock.forward(QUIET_S)
    node.works()
    assert "none: it has no chest radiograph that was looked at" in shown(node)


def test_status_counts_studies(node: Node) -> None:
    assert status.look(node.ledger, node.config).studies.oldest is None
    reported(node, 1)
    node.clock.forward(24 * 3600)
    reported(node, 2)
    node.comes(3)
    node.works()
    seen = status.look(node.ledger, node.config)
    assert (seen.studies.waiting, seen.studies.failed, seen.studies.reported_today) == (1, 0, 1)
    assert seen.studies.oldest is not None
    assert seen.studies.oldest.since == node.clock()
    assert not any("a study" in said for said in status.raised(status.parse("waiting"), seen)), "it has time"
    node.clock.forward(node.config.study.max_wait_s + 61)
    seen = status.look(node.ledger, node.config)
    sentence = "waiting: a study ought to be reported for 1 min 1 s (instance=1)"
    assert sentence in status.raised(status.parse("waiting>1m"), seen)
    assert sentence not in status.raised(status.parse("waiting>2m"), seen)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(ledger_tables.status(seen, TARGETS))
    assert "studies: 1 waiting, the oldest (#1) for 3 min 1 s; 1 reports made today" in captured.get()


def test_what_waits_for_its_study_has_a_stage_of_its_own(node: Node) -> None:
    def numbers(**wanted: Any) -> list[int]:
        return [row.id for row in listing.find(node.ledger, Wanted(**wanted), 10)]

    node.comes(1)
    node.works()
    assert numbers(stage=Stage.FOR_STUDY) == numbers(study=StudyState.WAITING) == [1]
    assert numbers(stage=Stage.TO_DELIVER) == []
    node.clock.forward(QUIET_S)
    node.works()
    assert numbers(stage=Stage.FOR_STUDY) == numbers(study=StudyState.FAILED) == []
    assert numbers(stage=Stage.TO_DELIVER) == numbers(study=StudyState.REPORTED) == [1]
    assert browse.count(node.ledger, Wanted(stage=Stage.TO_DELIVER)).number == 1


@pytest.mark.parametrize("words", [["trace", STUDY], ["trace", "#1"], ["list", "--study", "waiting"], ["status"]])
def test_the_commands_say_it_too(node: Node, tmp_path: Path, words: list[str]) -> None:
    node.comes(1)
    node.works()
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(node.config.spool.path)}, "destinations": [PACS, WARD]}))
    done = CliRunner().invoke(app, [*words, "--json", "--config", str(file)])
    assert done.exit_code == 0, done.output
    (line,) = map(json.loads, done.stdout.splitlines())
    match words[0]:
        case "trace":
            assert line["study"]["state"] == "WAITING"
            assert line["study"]["so_far"] == {"analysed": 1, "listed": 0, "failed": 0}
            assert line["instance"]["why"].startswith("waits for its study: ")
        case "list":
            assert line["id"] == 1
        case _:
            assert line["studies"]["waiting"] == 1
    assert CliRunner().invoke(app, [*words, "--config", str(file)]).exit_code == 0
