"""Agreement on both engines of the ledger: what is kept, what is counted, and that nothing of a report stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import binomtest
from typer.testing import CliRunner

from cxr_node.assurance import agreement, reports
from cxr_node.assurance.agreement import By
from cxr_node.assurance.rates import Rate
from cxr_node.assurance.report import Readers
from cxr_node.assurance.report_rules import Reader
from cxr_node.cli.node import app
from cxr_node.domain import AbstainReason, Verdict, View
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import queries, readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.readings import Kept, Reading
from cxr_node.subgroups import Subgroup
from tests import postgres
from tests.assurance.studies import accession, answered
from tests.node.ledgers import Clock, opened

P, N, U, R = Verdict.POSITIVE, Verdict.NEGATIVE, Verdict.INDETERMINATE, Verdict.REJECTED
READER = Reader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=postgres.ENGINES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with opened(request.param, tmp_path, clock) as ledger:
        yield ledger


def told(ledger: Ledger, folder: Path, rows: str) -> agreement.Imported:
    file = folder / "reports.csv"
    file.write_text(f"accession,label,at\n{rows}")
    return agreement.keep(ledger, reports.read([file], Readers(READER)))


def found(ledger: Ledger, clock: Clock, by: By = By.REPORTS) -> list[agreement.Case]:
    return agreement.cases(ledger, clock() - timedelta(days=1), clock() + timedelta(seconds=1), by)


def test_counts_by_hand(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    """Nine studies, one of them with two images; what is counted is what a person counts."""
    for number, verdict in enumerate((P, P, P, N, N, U, U, R), 1):
        answered(ledger, clock, number, verdict)
    answered(ledger, clock, 9, N)
    answered(ledger, clock, 10, U, study=9)  # the more suspicious image speaks for the study
    words = ["present", "present", "absent", "present", "absent", "present", "not-stated", "absent", "absent"]
    rows = "".join(f"{accession(number)},{word},\n" for number, word in enumerate(words, 1))
    done = told(ledger, tmp_path, rows + "UNKNOWN,present,\n")
    assert (done.reports, done.unmatched, done.kept) == (10, 1, {Kept.NEW: 9})
    of = agreement.figures(cases := found(ledger, clock))
    assert (of.studies, of.not_stated, of.not_analysed) == (9, 1, 1)
    assert (of.ppv, of.npv) == (Rate(2, 3), Rate(1, 2))
    assert (of.sensitivity, of.specificity, of.concordance) == (Rate(2, 3), Rate(1, 2), Rate(3, 5))
    assert (of.abstained, of.prevalence) == (Rate(2, 7), Rate(4, 8))
    assert [case.numbers for case in agreement.discordant(cases)] == [(3,), (4,)]
    assert cases[-1].numbers == (9, 10) and cases[-1].verdict is U
    clock.forward(1)
    assert agreement.answers(ledger, "test 1") == [
        *[(P, True), (P, True), (P, False), (N, True), (N, False)],
        *[(U, True), (U, False)],
    ]
    assert agreement.answers(ledger, "another") == []
    assert agreement.labels(cases)["1.2.3"] is False and len(agreement.labels(cases)) == 8


def test_groups(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    child, adult = Subgroup(view=View.PA, age_band="3 to 5"), Subgroup(view=View.AP, age_band=None)
    for number, (verdict, sender, of) in enumerate([(P, "ROOM1", child), (N, "ROOM1", child), (P, "ROOM2", adult)], 1):
        answered(ledger, clock, number, verdict, sender=sender, subgroup=of)
    told(ledger, tmp_path, "".join(f"{accession(number)},present,\n" for number in (1, 2, 3)))
    groups = {name: agreement.grouped(found(ledger, clock), name) for name in agreement.GROUPS}
    assert {key: one.sensitivity for key, one in groups["sender"].items()} == {"ROOM1": Rate(1, 2), "ROOM2": Rate(1, 1)}
    assert list(groups["age"]) == ["3 to 5", "not known"]
    assert list(groups["view"]) == ["PA", "AP"]
    assert list(groups["profile"]) == ["test 1"]


def test_a_repeated_import_changes_nothing_and_a_correction_supersedes(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    answered(ledger, clock, 1, P)
    first = f"{accession(1)},present,2026-03-01\n"
    assert told(ledger, tmp_path, first).kept == {Kept.NEW: 1}
    assert told(ledger, tmp_path, first).kept == {Kept.SAME: 1}
    assert told(ledger, tmp_path, f"{accession(1)},absent,2026-03-02\n").kept == {Kept.SUPERSEDES: 1}
    assert told(ledger, tmp_path, first).kept == {Kept.OLDER: 1}
    assert [case.said for case in found(ledger, clock)] == ["absent"]
    story = queries.trace(ledger, "instance=1")[0]
    assert [event.detail for event in story.events if event.what == "reading"] == ["csv: present", "csv: absent"]


def test_images_of_one_study_speak_with_one_voice(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    answered(ledger, clock, 1, P)
    answered(ledger, clock, 2, N, study=1)
    file = tmp_path / "images.csv"
    file.write_text("image,label\n1.2.1.1.1,present\n1.2.2.1.1,absent\n")
    for kept in (Kept.NEW, Kept.SAME):
        assert agreement.keep(ledger, reports.read([file], Readers(READER))).kept == {kept: 1}
    assert [case.said for case in found(ledger, clock)] == ["present"]


def test_what_is_said_beside_the_answer_is_kept_apart(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    answered(ledger, clock, 1, P)
    told(ledger, tmp_path, f"{accession(1)},absent,\n")
    clock.forward(60)
    for reader, said in (("anna", "absent"), ("ben", "present")):
        clock.forward(1)
        reading = Reading(study_instance_uid="1.2.1", source=readings.PAGE, reader=reader, said=said, said_at=clock())
        assert readings.keep(ledger, reading) is Kept.NEW
    assert [case.said for case in found(ledger, clock)] == ["absent"]
    assert [case.said for case in found(ledger, clock, By.PAGE)] == ["present"]  # the last one


def test_the_newest_version_of_an_image_counts(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    answered(ledger, clock, 1, U, abstain_reason=AbstainReason.VIEWS_DISAGREE)
    told(ledger, tmp_path, f"{accession(1)},present,\n")
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("UPDATE instances SET sop_instance_uid = '1.2.9' WHERE id = 1")
    answered(ledger, clock, 2, P, study=1)
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("UPDATE instances SET sop_instance_uid = '1.2.9' WHERE id = 2")
    assert [(case.numbers, case.verdict) for case in found(ledger, clock)] == [((2,), P)]


def test_with_the_last_image_of_a_study_its_readings_go(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    for number in (1, 2):
        answered(ledger, clock, number, P, study=1)
    answered(ledger, clock, 3, P)
    told(ledger, tmp_path, f"{accession(1)},present,\n{accession(3)},present,\n")
    for gone, left in ((1, {"1.2.1", "1.2.3"}), (2, {"1.2.3"})):
        with ledger.database.writing() as connection:
            retention.delete_rows(connection, [gone])
        assert set(readings.said_of(ledger, ["1.2.1", "1.2.3"])) == left


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 7), (3, 11), (160, 200)])
def test_the_interval_is_that_of_clopper_and_pearson(count: int, total: int) -> None:
    other = binomtest(count, total).proportion_ci(0.95, method="exact")
    assert Rate(count, total).interval == pytest.approx((other.low, other.high), abs=1e-9)


def test_nothing_of_nothing_is_no_figure() -> None:
    assert (Rate(0, 0).value, Rate(0, 0).interval, str(Rate(0, 0))) == (None, (0.0, 1.0), "-")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The configuration of a node that has answered three studies."""
    spool = tmp_path / "spool"
    spool.mkdir()
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(spool)}}))
    ledger = Ledger.open(spool)
    live = Clock(ledger.now())
    for number, verdict in enumerate((P, N, P), 1):
        answered(ledger, live, number, verdict)
    ledger.close()
    return file


def test_the_command_reads_compares_and_keeps_no_word_of_a_report(node: Path, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    text = "Jane Doe, 4711: right lower lobe pneumonia, called through to Dr CANARY."
    file.write_text(f'accession,text\n{accession(1)},"{text}"\n{accession(2)},"{text}"\nCANARY7,No pneumonia.\n')

    def run(*more: str) -> Any:
        done = CliRunner().invoke(app, ["agreement", "--config", str(node), *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    said = json.loads(run("--reports", str(file), "--json"))
    assert said["imported"]["unmatched"] == 1 and said["imported"]["kept"] == {"new": 2}
    assert said["all"]["ppv"]["value"] == 1.0 and said["all"]["npv"]["count"] == 0
    assert said["discordant"] == [{"images": [2], "verdict": "NEGATIVE", "said": "present"}]
    shown = run()
    assert "discordant: #2: NEGATIVE here, present there" in shown and "PPV" in shown
    for kept in (path for path in (tmp_path / "spool").rglob("*") if path.is_file()):
        content = kept.read_bytes()
        assert not any(word in content for word in (b"CANARY", b"Jane", b"lower lobe", b"A00001")), kept


def test_without_a_word_there_is_nothing_to_compare(node: Path) -> None:
    done = CliRunner().invoke(app, ["agreement", "--config", str(node)])
    assert done.exit_code == 2 and "nobody's word" in done.output
