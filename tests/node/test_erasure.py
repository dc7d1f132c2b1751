"""Erasure beside a running node: nothing of an image stays here, nothing in hand is torn, archives are told."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.dicom.read import header
from cxr_node.errors import ResourceError
from cxr_node.node.audit import recorder
from cxr_node.node.audit.messages import Act, Deed, Outcome
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.tables import destination_health, metadata
from cxr_node.node.receive import recovery
from cxr_node.node.spool.spool import Area
from tests import builders
from tests.node import audit_schema
from tests.node.test_operator_moves import SOP, Node, node, rules  # noqa: F401 (a fixture)


def rows_of(node: Node) -> dict[str, int]:  # noqa: F811
    """How many rows each table has, but for those without any; how a destination fares is no patient's."""
    with node.ledger.database.reading() as connection:
        counted = {
            table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
            if table is not destination_health
        }
    return {name: number for name, number in counted.items() if number}


def files_of(node: Node) -> list[Path]:  # noqa: F811
    return [path for area in Area for path in (node.config.spool.path / area).rglob("*") if path.is_file()]


def test_nothing_of_an_image_stays(node: Node) -> None:  # noqa: F811
    node.receive()
    assert node.answered() == 3
    (doomed,) = retention.look(node.ledger, node.rows())
    assert doomed.results == 5, "measurements in three SOP Classes"
    assert [(left.destination, left.kind, left.is_sure) for left in doomed.left] == [
        ("pacs", kind, True) for kind in ("report", "measurements", "heatmap")
    ]
    assert {left.sop_instance_uid for left in doomed.left} == set(node.archive)
    retention.erase(node.ledger, node.spool, doomed.instance_id, 0.0)
    assert (files_of(node), rows_of(node)) == ([], {})
    assert recovery.rebuild(node.ledger, node.spool, header.identify).received == 0, "nothing comes back by itself"
    retention.erase(node.ledger, node.spool, doomed.instance_id, 0.0)  # twice is no error
    node.receive()
    assert node.answered() == 3, "sent once more it is a new image"


def test_a_patient_is_found_in_all_studies_by_digest_and_character_set(node: Node) -> None:  # noqa: F811
    written = "Нина-7"
    for number, charset in ((1, "ISO_IR 192"), (2, "ISO_IR 144")):
        node.receive(
            number=number,
            SpecificCharacterSet=charset,
            PatientID=written,
            PatientName="x",
            StudyDescription="x",
        )
    node.receive(number=3)
    found = retention.of_patient(node.ledger, lambda study: header.patient_keys(study, written))
    assert found == [1, 2]
    assert retention.of_patient(node.ledger, lambda study: header.patient_keys(study, "Нина")) == []


@pytest.mark.parametrize("charset", ["ISO 2022 IR 149", "ISO 2022 IR 87"])
def test_a_patient_is_found_where_the_character_set_is_changed_by_an_escape(node: Node, charset: str) -> None:  # noqa: F811
    written = "김-7" if charset == "ISO 2022 IR 149" else "山-7"
    node.receive(SpecificCharacterSet=["", charset], PatientID=written, PatientName="x")
    assert retention.of_patient(node.ledger, lambda study: header.patient_keys(study, written)) == [1]


def test_an_image_that_is_being_judged_is_waited_for(node: Node) -> None:  # noqa: F811
    node.receive()
    job = node.ledger.claim_instance("worker", 60.0)
    assert job is not None
    with pytest.raises(ResourceError, match="judged or sent right now"):
        retention.erase(node.ledger, node.spool, 1, 0.0)
    assert len(files_of(node)) == 1
    ended = threading.Thread(target=retention.erase, args=(node.ledger, node.spool, 1, 30.0))
    ended.start()
    assert node.ledger.release(job, delay_s=0.0, detail="", count_attempt=False)
    ended.join(30)
    assert (files_of(node), rows_of(node)) == ([], {})


def test_what_was_sent_while_the_erasure_waited_is_told(node: Node) -> None:  # noqa: F811
    node.receive()
    node.judge()
    (before,) = retention.look(node.ledger, [1])
    assert before.left == ()
    assert node.deliver() == 3
    erased = retention.erase(node.ledger, node.spool, 1, 0.0)
    assert erased is not None
    assert {left.sop_instance_uid for left in erased.left} == set(node.archive)
    assert retention.erase(node.ledger, node.spool, 1, 0.0) is None


def test_nobody_begins_with_what_is_to_be_erased(node: Node) -> None:  # noqa: F811
    """One result is on its way; the two that wait do not follow it."""
    node.receive()
    node.judge()
    job = node.ledger.claim_delivery("pacs", "courier", 60.0)
    assert job is not None
    with pytest.raises(ResourceError):
        retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.ledger.claim_delivery("pacs", "courier", 60.0) is None
    assert node.ledger.settle_delivered(job, 0x0000)
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert (files_of(node), rows_of(node)) == ([], {})


def test_a_lease_of_an_erasure_that_died_runs_out(node: Node) -> None:  # noqa: F811
    node.receive()
    node.judge()
    job = node.ledger.claim_delivery("pacs", "courier", 60.0)
    assert job is not None
    with pytest.raises(ResourceError):
        retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.ledger.settle_delivered(job, 0x0000)
    now = node.ledger.now
    node.ledger.now = lambda: now() + retention.LEASE
    assert node.deliver() == 2
    assert node.states() == [("DELIVERED", None)]


def test_killed_between_files_and_rows_the_next_try_ends_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    node.receive()
    assert node.answered() == 3
    with monkeypatch.context() as patched:
        patched.setattr(retention, "delete_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            retention.erase(node.ledger, node.spool, 1, 0.0)
    assert files_of(node) == []
    assert node.rows() == [1]
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert rows_of(node) == {}


def test_results_that_another_transfer_syntax_shares_stay_with_it(node: Node) -> None:  # noqa: F811
    node.receive()
    assert node.answered() == 3
    node.take(builders.part10(builders.radiograph(), "1.2.840.10008.1.2"))
    assert node.answered() == 0
    assert node.rows() == [1, 2]
    retention.erase(node.ledger, node.spool, 1, 0.0)
    assert node.rows() == [2]
    assert len(node.stories()[0].deliveries) == 3
    assert node.resend().due == {"pacs": 3}
    assert node.deliver() == 3
    assert retention.related(node.ledger, [2]) == []


def test_other_versions_of_the_radiograph_are_told(node: Node) -> None:  # noqa: F811
    node.receive(PatientName="Wrong^Name")
    node.receive(PatientName="Right^Name")
    assert node.answered() == 6
    assert retention.related(node.ledger, [2]) == [1]
    retention.erase(node.ledger, node.spool, 2, 0.0)
    assert node.rows() == [1]
    assert queries.trace(node.ledger, SOP)[0].replaced_by == ()


@pytest.mark.parametrize("deed", Deed)
def test_the_audit_trail_has_each_deed_in_the_standards_words(tmp_path: Path, deed: Deed) -> None:
    config = rules(tmp_path)
    act = Act(
        deed=deed,
        study_instance_uid="1.2.3",
        patient_key="ab" * 32,
        sop_classes={"1.2.840.10008.5.1.4.1.1.1.1": 2},
        words="as a person asked",
        outcome=Outcome.SUCCESS,
    )
    with recorder.by_operator(config, "erase", "anna") as tell:
        tell(act)
    (segment,) = (config.spool.path / "audit").glob("*-erase-*.log")
    (line,) = segment.read_bytes().splitlines()
    message = line[line.index(b"<AuditMessage") :]
    assert audit_schema.faults(message) == []
    assert deed.value[1][0].encode() in message
    assert b'UserIsRequestor="true"' in message


def test_nothing_is_recorded_where_the_audit_is_off(tmp_path: Path) -> None:
    config = rules(tmp_path, audit={"enabled": False})
    with recorder.by_operator(config, "erase", "anna") as tell:
        tell(Act(deed=Deed.ERASED, study_instance_uid="1.2", patient_key="", sop_classes={}, words=""))
    assert not list(tmp_path.rglob("*.log"))
