"""resend, rejudge, admit and erase as an operator types them: what is said, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node.cli.node import app
from tests.node.test_operator_moves import ADULT, SOP, Node, opened_node

RUNNER = CliRunner()
STUDY = "1.2.826.0.1.3680043.8.498.77.2.1"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with opened_node(tmp_path) as opened:
        yield opened


def typed(node: Node, *words: str, answer: str | None = None) -> Result:
    """Type a command."""
    file = node.config.spool.path.parent / "node.yaml"
    destinations = [
        {"name": to.name, "address": str(to.address), "report_per": to.report_per.value}
        for to in node.config.destinations
    ]
    content = {"spool": {"path": str(node.config.spool.path)}, "destinations": destinations}
    file.write_text(yaml.safe_dump(content))
    shown = RUNNER.invoke(app, [*words, "--config", str(file)], input=answer)
    assert "Traceback" not in shown.output
    return shown


def plain(shown: Result) -> str:
    return " ".join(shown.output.split())


def test_send_again_by_study_and_by_time(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    shown = typed(node, "resend", STUDY)
    assert (shown.exit_code, plain(shown)) == (0, "pacs: 3 objects are due again")
    assert node.deliver() == 3
    assert "3 objects are due again" in plain(typed(node, "resend", "--since", "7d", "--to", "pacs"))
    assert "3 objects were waiting to be sent anyway" in plain(typed(node, "resend", SOP))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resend",), "name an image or a study, or write --since"),
        (("resend", "1.2.9"), "1.2.9: the ledger knows no such UID"),
        (("resend", SOP, "--to", "ward"), "no destination of this name is configured; there are: pacs"),
        (("resend", SOP, "--since", "soon"), "write how long ago"),
        (("rejudge",), "name an image or a study, or write --rejected"),
        (("rejudge", SOP, "--rejected", "color"), "name an image or a study, or write --rejected"),
        (("rejudge", "--rejected", "ugly"), "--rejected: there is no 'ugly'; write unreadable-header"),
        (("rejudge", "--rejected", "color"), "there is no such image"),
        (("admit", SOP), "nothing of it was rejected because its patient or study contradicts"),
        (("erase", "--yes"), "name an image or a study, or write --patient"),
        (("erase", "--patient", "NOBODY", "--yes"), "the ledger knows no image of this Patient ID"),
        (("erase", "--patient", " ", "--yes"), "--patient: is empty"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_2(node: Node, words: tuple[str, ...], said: str) -> None:
    node.receive()
    assert node.answered() == 3
    shown = typed(node, *words)
    assert (shown.exit_code, said in plain(shown)) == (2, True), plain(shown)


def test_judge_again_what_was_rejected(node: Node) -> None:
    node.receive(**ADULT)
    node.judge()
    shown = typed(node, "rejudge", "--rejected", "age-outside-population", "--since", "1h")
    assert (shown.exit_code, plain(shown)) == (0, "1 back in the queue")
    assert node.states() == [("RECEIVED", None)]
    assert plain(typed(node, "rejudge", SOP)) == "0 back in the queue 1 were in the queue anyway"


def test_admit_says_what_remains_in_the_archive(node: Node) -> None:
    node.receive(PatientID="TEMP1")
    assert node.answered() == 3
    node.receive(PatientID="REAL1")
    node.judge()
    shown = typed(node, "admit", SOP)
    assert shown.exit_code == 0
    assert "1 back in the queue" in plain(shown)
    assert "must be removed there" in plain(shown)
    assert all(uid in shown.output for uid in node.archive)
    assert "TEMP1" not in shown.output and "REAL1" not in shown.output
    assert node.answered() == 3
    (segment,) = (node.config.spool.path / "audit").glob("*-admit-*.log")
    assert b'EventActionCode="U"' in segment.read_bytes()


def test_erase_asks_and_tells_what_is_left(node: Node) -> None:
    node.receive(PatientID="SECRET-7")
    assert node.answered() == 3
    refused = typed(node, "erase", "--patient", "SECRET-7", answer="n\n")
    assert refused.exit_code == 1
    assert "Erase 1 images and 5 result objects for good?" in refused.output
    assert len(node.rows()) == 1
    shown = typed(node, "erase", "--patient", "-", "--yes", answer="SECRET-7\n")
    assert shown.exit_code == 0, shown.output
    assert "1 images are erased here" in plain(shown)
    assert all(uid in shown.output for uid in node.archive)
    assert "SECRET-7" not in shown.output
    assert node.rows() == []
    written = b"".join(path.read_bytes() for path in node.config.spool.path.rglob("*") if path.is_file())
    assert b"SECRET-7" not in written
    assert b"DICOM Study Deleted" in written


def test_erase_for_programs(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    told = json.loads(typed(node, "erase", "#1", "--yes", "--json").output)
    assert (told["erased"], told["other_versions"]) == (1, [])
    assert {one["sop_instance_uid"] for one in told["left"]} == set(node.archive)


def test_trace_tells_of_versions(node: Node) -> None:
    node.receive(PatientName="Wrong^Name")
    node.receive(PatientName="Right^Name")
    assert node.answered() == 6
    lines = typed(node, "trace", SOP, "--json").output.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert [each["instance_id"] for each in first["replaced_by"]] == [second["instance"]["id"]]
    assert [each["instance_id"] for each in second["replaces"]] == [first["instance"]["id"]]
    assert "image #1, 5 result objects" in plain(typed(node, "trace", SOP))
