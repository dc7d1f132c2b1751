"""Corrected, sent again, judged again, admitted: what an operator needs when a header or a rule was wrong.

Real radiographs through the worker's own pipeline; deliveries are settled by hand. On the code before, a corrected
header ended as DELIVERED with nothing sent, and there was no way to send or to judge anything again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from cxr_node import pipeline
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.domain import Origin, Reason
from cxr_node.errors import DataError
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import operator_moves, queries
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.lookup import matching
from cxr_node.node.ledger.states import DeliveryState, InstanceState
from cxr_node.node.receive import recovery
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work import worker
from cxr_node.result_kinds import DICOM_KINDS
from tests import builders

SOP = str(builders.radiograph().SOPInstanceUID)
PACS = {"name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image"}
SECOND = {"name": "second", "address": "SECOND@127.0.0.1:105", "report_per": "image", "send": ["report"]}


def rules(folder: Path, *destinations: dict[str, Any], **sections: Any) -> Config:
    spool = {"path": str(folder / "spool"), "min_free_mib": 0}
    return loader.parse({"spool": spool, "destinations": list(destinations or [PACS]), **sections})


@dataclass
class Node:
    """A node without network and network of neurons: images in, deliveries settled by hand."""

    config: Config
    ledger: Ledger
    spool: Spool
    archive: dict[str, list[bytes]]
    """What was sent, by SOP Instance UID."""

    def receive(self, number: int = 1, **overrides: Any) -> str:
        """Take a radiograph, as the receiver does; its digest."""
        return self.take(builders.part10(builders.radiograph(number, **overrides)))

    def take(self, content: bytes) -> str:
        part = self.spool.begin()
        part.write(content)
        ref = header.inspect(part.path).ref
        stored = self.spool.store_object(part, datetime.now(UTC))
        origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=stored.at)
        self.ledger.add(ref, origin, stored.sha256, stored.size_bytes)
        return stored.sha256

    def judge(self, *, probability: float = 0.97) -> None:
        """Judge all that waits."""
        worker = self.worker(builders.FixedPredictor(probability=probability))
        while worker.do_one():
            pass

    def worker(self, predictor: pipeline.Predictor) -> worker.Worker:
        """A worker with that predictor, as `cxr-node work` makes it."""
        analyser = worker.Analyser(
            report=lambda case, config: None,
            process=lambda content, origin, config, precedent: pipeline.process(
                content, origin, predictor, config, precedent
            ),
            rules_sha256=pipeline.rules_sha256(predictor, self.config),
        )
        return worker.Worker(self.config, self.ledger, self.spool, "worker", analyser)

    def deliver(self) -> int:
        """Send all that is due; how many objects went."""
        sent = 0
        for destination in self.config.destinations:
            while (job := self.ledger.claim_delivery(destination.name, "courier", 60.0)) is not None:
                content = self.spool.read(Area.RESULTS, job.artifact.content_sha256)
                self.archive.setdefault(job.artifact.sop_instance_uid, []).append(content)
                assert self.ledger.settle_delivered(job, 0x0000)
                sent += 1
        return sent

    def answered(self) -> int:
        self.judge()
        return self.deliver()

    def stories(self, key: str = SOP) -> list[queries.Story]:
        return queries.trace(self.ledger, key)

    def states(self) -> list[tuple[str, str | None]]:
        return [(story.instance.state.value, story.instance.reason) for story in self.stories()]

    def rows(self) -> list[int]:
        return [story.instance.id for story in self.stories()]

    def resend(
        self, *, named: bool = True, to: str | None = None, rows: list[int] | None = None
    ) -> operator_moves.Resent:
        wanted = {name: wish for name, wish in self.config.wishes.items() if to in (None, name)}
        return operator_moves.resend(self.ledger, self.spool, rows or self.rows(), wanted, named=named, by="anna")

    def headers(self, kind: str) -> list[Dataset]:
        """Objects of a kind that were sent, in the order of their first sending."""
        series = {"report": "9100", "measurements": "9101", "heatmap": "9102"}[kind]
        found = [dcmread(io.BytesIO(contents[0])) for contents in self.archive.values()]
        return [each for each in found if str(each.SeriesNumber) == series]


@contextmanager
def opened_node(tmp_path: Path) -> Iterator[Node]:
    config = rules(tmp_path)
    ledger = Ledger.open(config.spool.path)
    try:
        yield Node(config, ledger, Spool(config.spool.path), {})
    finally:
        ledger.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with opened_node(tmp_path) as opened:
        yield opened


def replaced(report: Dataset) -> list[str]:
    return [
        str(document.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    ]


CORRECTIONS: dict[str, dict[str, Any]] = {
    "name": {"PatientName": "Right^Name"},
    "accession number": {"AccessionNumber": "NEW1"},
    "birth date": {"PatientBirthDate": "20200101", "PatientAge": "004Y"},
    "sex": {"PatientSex": "M"},
    "study description": {"StudyDescription": "Chest AP"},
    "station": {"StationName": "XR9"},
    "orientation": {"PatientOrientation": ["R", "F"]},
}


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_corrected_header_gets_new_results_that_name_the_old_ones(node: Node, correction: str) -> None:
    node.receive()
    assert node.answered() == 3
    node.receive(**CORRECTIONS[correction])
    assert node.answered() == 3, "DELIVERED, and nothing sent"
    assert node.states() == [("DELIVERED", None)] * 2
    for kind in ("report", "measurements"):
        old, new = node.headers(kind)
        assert (replaced(old), replaced(new)) == ([], [str(old.SOPInstanceUID)])
    first, second = node.stories()
    assert [each.instance_id for each in second.replaces] == [first.instance.id]
    assert [each.instance_id for each in first.replaced_by] == [second.instance.id]
    assert (first.replaces, second.replaced_by) == ((), ())
    node.receive(**CORRECTIONS[correction])
    assert node.answered() == 0, "the corrected one again"


def test_a_header_that_no_result_says_sends_nothing_anew(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    node.receive(SeriesDescription="Chest PA, second console")
    assert node.answered() == 0
    assert node.states() == [("DELIVERED", None)] * 2
    assert node.stories()[0].replaced_by == ()


def test_another_study_under_the_same_uid_gets_results_of_its_own(node: Node) -> None:
    """Moved to the right patient's study: nothing of the wrong one's is named there."""
    node.receive(PatientID="WRONG")
    assert node.answered() == 3
    moved = {"StudyInstanceUID": "1.2.3.7", "SeriesInstanceUID": "1.2.3.7.1"}
    node.receive(PatientID="RIGHT", PatientName="Right^Patient", **moved)
    assert node.answered() == 3
    new = node.headers("report")[1]
    assert (new.PatientID, new.StudyInstanceUID, replaced(new)) == ("RIGHT", "1.2.3.7", [])
    first, second = node.stories()
    assert [(each.same_study, each.same_patient) for each in second.replaces] == [(False, None)]
    assert [each.instance_id for each in first.replaced_by] == [second.instance.id]


def test_a_corrected_version_waits_for_the_one_before_it(node: Node) -> None:
    """Two lanes: whichever is quicker, the later one must know what it replaces."""
    node.receive()
    node.receive(PatientName="Right^Name")
    first = node.ledger.claim_instance("lane-1", 60.0)
    assert first is not None
    assert node.ledger.claim_instance("lane-2", 60.0) is None
    assert queries.next_instance_s(node.ledger) == 0.5, "it is looked for soon, and not in a busy loop"
    assert node.ledger.release(first, delay_s=0.0, detail="", count_attempt=False)
    assert node.answered() == 6
    assert replaced(node.headers("report")[1]) == [str(node.headers("report")[0].SOPInstanceUID)]


def test_a_ledger_made_anew_gives_the_same_bytes_of_every_version(tmp_path: Path) -> None:
    config = rules(tmp_path)
    spool, archive = Spool(config.spool.path), {}
    ledger = Ledger.open(config.spool.path)
    node = Node(config, ledger, spool, archive)
    for name in ("First^Name", "Second^Name", "Third^Name"):
        node.receive(PatientName=name)
        assert node.answered() == 3
    node.receive(PatientID="REAL-1")
    node.judge()
    operator_moves.admit(ledger, spool, operator_moves.conflicts(ledger, node.rows()), by="anna")
    assert node.answered() == 3
    ledger.close()
    for file in config.spool.path.glob(f"{FILE_NAME}*"):
        file.unlink()
    ledger = Ledger.open(config.spool.path)
    node = Node(config, ledger, spool, archive)
    assert recovery.rebuild(ledger, spool, header.identify).received == 4
    assert node.answered() == 12
    assert all(contents == [contents[0]] * 2 for contents in archive.values()), "another UID, or other bytes"
    assert len(archive) == 12
    ledger.close()


def test_a_corrected_patient_id_is_admitted_by_an_operator(node: Node) -> None:
    node.receive(PatientID="TEMP1")
    assert node.answered() == 3
    node.receive(PatientID="REAL1")
    other = {"SOPInstanceUID": "1.2.3.8", "SeriesNumber": "2"}
    node.receive(PatientID="REAL1", **other)
    assert node.answered() == 0
    story = node.stories()[1]
    assert story.instance.reason == Reason.IDENTITY_CONFLICT
    assert "cxr-node admit" in str(story.instance.sentence)
    assert "removed there" in str(story.instance.sentence)
    found = operator_moves.conflicts(node.ledger, node.rows())
    assert found == [2, 3], "the other images of that patient in the study are meant too"
    assert operator_moves.admit(node.ledger, node.spool, found, by="anna") == operator_moves.Rejudged(queued=2)
    assert node.answered() == 6
    assert [str(each.PatientID) for each in node.headers("report")] == ["TEMP1", "REAL1", "REAL1"]
    assert [each.same_patient for each in node.stories()[1].replaces] == [False]
    assert operator_moves.rejudge(node.ledger, [1, 2, 3], by="anna").queued == 3
    assert node.answered() == 0, "the earlier version is answered as it was, and so is what replaces it"
    node.receive(PatientID="REAL1", SOPInstanceUID="1.2.3.9")
    assert node.answered() == 3, "from now on it is this study's"
    node.receive(PatientID="TEMP1", SOPInstanceUID="1.2.3.10")
    node.judge()
    assert node.stories("1.2.3.10")[0].instance.reason == Reason.IDENTITY_CONFLICT


def test_a_corrected_study_of_a_series_is_admitted(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    node.receive(StudyInstanceUID="1.2.3.7")
    assert node.answered() == 0
    assert "The study differs" in str(node.stories()[1].instance.sentence)
    contradicting = operator_moves.conflicts(node.ledger, node.rows())
    assert operator_moves.admit(node.ledger, node.spool, contradicting, by="anna").queued == 1
    assert node.answered() == 3


def test_only_a_conflict_can_be_admitted_and_only_one_patient(node: Node) -> None:
    node.receive(PatientID="TEMP1")
    assert node.answered() == 3
    with pytest.raises(DataError, match="nothing of it was rejected because"):
        operator_moves.conflicts(node.ledger, node.rows())
    node.receive(PatientID="REAL1")
    node.receive(PatientID="REAL2")
    node.judge()
    with pytest.raises(DataError, match="several patients of one study"):
        operator_moves.conflicts(node.ledger, node.rows())
    assert operator_moves.conflicts(node.ledger, [3]) == [3]


def test_results_that_an_archive_lost_go_again_the_same_bytes(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    assert node.resend().due == {"pacs": 3}
    assert node.states() == [("REPORTED", None)]
    assert node.resend() == operator_moves.Resent(waiting=3)
    assert node.deliver() == 3
    assert node.states() == [("DELIVERED", None)]
    assert all(contents == [contents[0]] * 2 for contents in node.archive.values())


def test_a_destination_that_came_later_gets_what_it_missed(node: Node, tmp_path: Path) -> None:
    node.receive()
    assert node.answered() == 3
    node.config = rules(tmp_path, PACS, SECOND)
    assert node.resend(named=False, to="second").due == {"second": 1}, "it wants reports alone"
    assert node.deliver() == 1
    assert {row.destination for row in node.stories()[0].deliveries if row.kind == "report"} == {"pacs", "second"}
    assert node.states() == [("DELIVERED", None)]


def test_what_a_corrected_version_replaced_is_not_sent_again_unless_it_is_named(node: Node) -> None:
    node.receive(PatientName="Wrong^Name")
    node.receive(PatientName="Right^Name")
    assert node.answered() == 6
    for named in (True, False):
        done = node.resend(named=named)
        assert (done.due, done.replaced) == ({"pacs": 3}, 1)
        assert node.deliver() == 3
    assert node.resend(rows=[1], named=False) == operator_moves.Resent(replaced=1)
    assert node.resend(rows=[1]).due == {"pacs": 3}


def test_what_retention_took_is_told_and_can_be_made_again(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    now = node.ledger.now
    node.ledger.now = lambda: now() + timedelta(days=31)
    assert retention.sweep(node.ledger, node.spool, 30.0) == 1
    assert node.resend() == operator_moves.Resent(purged=1)
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna") == operator_moves.Rejudged(purged=1)
    digest = node.receive()
    assert node.resend() == operator_moves.Resent(purged=1), "the radiograph is back, its results are not"
    node.spool.date(digest, node.stories()[0].instance.received_at)
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna") == operator_moves.Rejudged(queued=1)
    assert node.answered() == 0, "known results go by `resend`"
    assert node.resend().due == {"pacs": 3}
    assert node.deliver() == 3
    assert all(contents == [contents[0]] * 2 for contents in node.archive.values())


def test_judged_again_unchanged_nothing_doubles(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna") == operator_moves.Rejudged(queued=1)
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna") == operator_moves.Rejudged(waiting=1)
    assert node.answered() == 0
    assert node.states() == [("DELIVERED", None)]
    assert len(node.archive) == 3


def test_judged_again_under_other_rules_the_new_results_are_the_instances(node: Node, tmp_path: Path) -> None:
    node.receive()
    assert node.answered() == 3
    node.config = rules(tmp_path, results={"installation_id": "other"})
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna").queued == 1
    assert node.answered() == 3
    assert node.resend().due == {"pacs": 3}, "the outdated ones stay where they are"
    assert node.deliver() == 3
    node.config = rules(tmp_path)
    assert operator_moves.rejudge(node.ledger, node.rows(), by="anna").queued == 1
    assert node.answered() == 0, "the first answer is the instance's again"
    node.resend()
    assert node.deliver() == 3
    assert sorted(map(len, node.archive.values())) == [2] * 6


ADULT = {"PatientAge": "040Y", "PatientBirthDate": "19840101"}
WARN = {"admission": {"age_policy": "warn"}}


def test_a_rejected_image_that_comes_again_under_other_rules_is_judged(node: Node, tmp_path: Path) -> None:
    node.receive(**ADULT)
    assert node.answered() == 0
    (before,) = node.stories()
    assert before.instance.reason == Reason.AGE_OUTSIDE_POPULATION
    node.receive(**ADULT)
    node.judge()
    (after,) = node.stories()
    assert (after.instance.state, after.instance.reason) == ("REJECTED", "age-outside-population")
    assert after.instance.sentence == before.instance.sentence
    assert after.instance.updated_at == before.instance.updated_at
    assert after.events == before.events, "refused as before, without being judged"
    node.config = rules(tmp_path, **WARN)
    node.receive(**ADULT)
    assert node.answered() == 3
    assert node.states() == [("DELIVERED", None)]


def test_a_rejected_image_that_comes_again_to_other_weights_is_judged(node: Node) -> None:
    node.receive(**ADULT)
    node.judge()
    (before,) = node.stories()
    node.receive(**ADULT)
    profile = builders.profile(weights_sha256="cd" * 32)
    node.worker(builders.FixedPredictor(profile=profile)).do_one()
    (after,) = node.stories()
    assert len(after.events) == len(before.events) + 1


def test_all_that_was_rejected_for_a_reason_is_judged_again(node: Node, tmp_path: Path) -> None:
    node.receive(**ADULT)
    node.receive(SOPInstanceUID="1.2.3.8", ViewPosition="LL")
    node.judge()
    node.config = rules(tmp_path, **WARN)
    found = operator_moves.find(node.ledger, operator_moves.rejected_for(Reason.AGE_OUTSIDE_POPULATION))
    assert found == [1]
    assert operator_moves.find(node.ledger, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert operator_moves.find(node.ledger, matching("1.2.3.8")) == [2]
    assert operator_moves.rejudge(node.ledger, found, by="anna").queued == 1
    assert node.answered() == 3
    assert node.states() == [("DELIVERED", None)]


def test_an_image_of_which_a_delivery_is_dead_is_sent_again(node: Node) -> None:
    node.receive()
    node.judge()
    job = node.ledger.claim_delivery("pacs", "courier", 60.0)
    assert job is not None
    assert node.ledger.settle_delivery_dead(job, status=None, detail="gone")
    assert node.deliver() == 2
    assert node.states() == [("DEAD", "undelivered")]
    assert node.resend().due == {"pacs": 3}
    assert node.deliver() == 3
    assert node.states() == [("DELIVERED", None)]
    assert {row.state for row in node.stories()[0].deliveries} == {DeliveryState.DELIVERED}


def test_rejected_objects_go_after_a_day_but_not_those_that_may_be_admitted(node: Node) -> None:
    node.receive()
    assert node.answered() == 3
    node.receive(PatientID="REAL1", SOPInstanceUID="1.2.3.8")
    node.receive(SOPInstanceUID="1.2.3.9", Modality="CT")
    node.judge()
    now = node.ledger.now
    node.ledger.now = lambda: now() + timedelta(days=1.5)
    assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 1
    assert [story.instance.purged_at is None for key in (SOP, "1.2.3.8", "1.2.3.9") for story in node.stories(key)] == [
        True,
        True,
        False,
    ]
    assert node.states() == [("DELIVERED", None)]


def test_every_kind_that_a_destination_wants_is_sent_again(node: Node, tmp_path: Path) -> None:
    every = PACS | {"send": [kind.value for kind in DICOM_KINDS]}
    node.config = rules(tmp_path, every)
    node.receive()
    sent = node.answered()
    assert sent == len(pipeline.BUILDERS)  # all but the note, which is of a rejected one
    assert node.resend().due == {"pacs": sent}
    assert node.stories()[0].instance.state is InstanceState.REPORTED
