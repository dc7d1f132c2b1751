"""Cases to learn from: chosen, written without patients, read by training."""

from __future__ import annotations

import csv
import json
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from cxr_node.cli.node import app
from cxr_node.domain import Verdict
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.training.data import images
from tests import builders
from tests.assurance.studies import accession, answered
from tests.node.ledgers import Clock

P, N, U, R = Verdict.POSITIVE, Verdict.NEGATIVE, Verdict.INDETERMINATE, Verdict.REJECTED
ANSWERS = {1: P, 2: P, 3: N, 4: U, 5: U, 6: P, 7: U}
SAID = {1: "present", 2: "absent", 3: "present", 4: "present", 6: "absent"}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node that answered seven studies: 2, 3 and 6 are discordant; 4, 5 and 7 uncertain; 6 is burned in, 7 gone."""
    spool = Spool(tmp_path / "spool")
    spool.store.prepare()
    ledger = Ledger.open(spool.path)
    clock = Clock(ledger.now())
    for number, verdict in ANSWERS.items():
        answered(ledger, clock, number, verdict)
        content = builders.part10(builders.radiograph(number, BurnedInAnnotation="YES" if number == 6 else None))
        if number != 7:
            digest = spool.store_result(content).sha256
            place = spool.path / "objects" / digest[:2] / f"{digest}.dcm"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            assert spool.load(Area.OBJECTS, digest) == content
        with ledger.database.writing() as connection:
            digest = sha256(content).hexdigest()
            connection.exec_driver_sql(f"UPDATE instances SET content_sha256 = '{digest}' WHERE id = {number}")
            if number == 7:
                connection.exec_driver_sql("UPDATE instances SET purged_at = received_at WHERE id = 7")
    ledger.close()
    reports = tmp_path / "reports.csv"
    reports.write_text("accession,label\n" + "".join(f"{accession(number)},{word}\n" for number, word in SAID.items()))
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"spool": {"path": str(spool.path)}}))
    assert CliRunner().invoke(app, ["agreement", str(reports), "-c", str(config)]).exit_code == 0
    return config


def export(node: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["export-cases", "-c", str(node), *more])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_discordant_and_uncertain_studies_are_written_for_training(node: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export(node, "--discordant", "--uncertain", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["cases"], said["images"], said["labelled"]) == (6, 4, 3)
    assert said["left_out"] == {"burned-in annotation": 1, "no longer in the spool": 1}
    listed = [(row["image"], row["why"], row["said"], row["why_not"]) for row in rows(out / "cases.csv")]
    assert listed == [
        ("2", "discordant", "absent", ""), ("3", "discordant", "present", ""), ("4", "uncertain", "present", ""),
        ("5", "uncertain", "not-stated", ""), ("6", "discordant", "absent", "burned-in annotation"),
        ("7", "uncertain", "not-stated", "no longer in the spool"),
    ]  # fmt: skip
    items = images.read(out, {"PNEUMONIA": True, "NORMAL": False})
    assert sorted(item.positive for item in items) == [False, True, True]
    assert len({item.group for item in items}) == 3 and {item.tags["view"] for item in items} == {"PA"}
    assert images.load(items[0]).shape == (320, 288)
    assert "NOT CLEANED" in (out / "READ_FIRST.txt").read_text()
    for path in out.iterdir():
        content = path.read_bytes()
        assert not any(word in content for word in (b"TEST-000", b"Child", b"ACC000", b"20240601")), path


def test_a_site_has_its_own_words(node: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(node, "--discordant", "--out", str(out), "--positive", "yes", "--negative", "no")
    assert {row["label"] for row in rows(out / "manifest.csv")} == {"yes", "no"}


def test_it_is_asked_which_and_overwrites_nothing(node: Path, tmp_path: Path) -> None:
    assert export(node, "--out", str(tmp_path / "out")).exit_code == 2
    full = export(node, "--discordant", "--out", str(tmp_path))
    assert full.exit_code == 2 and "not empty" in full.output
