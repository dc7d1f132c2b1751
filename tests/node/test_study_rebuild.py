"""A ledger that was lost, and studies: the reports that are made again are those that were sent, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_node import pipeline, study_pipeline
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.domain import Origin
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import operator_moves, set_aside
from cxr_node.node.ledger import studies as study_rows
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import SetAsideReason
from cxr_node.node.receive import recovery
from cxr_node.node.spool.spool import Area, Spool
from cxr_node.node.work.worker import Analyser, Worker
from tests import builders
from tests.dicom import studies
from tests.node import workplace
from tests.node.ledgers import Clock

PACS = {"name": "pacs", "address": "PACS@127.0.0.1:104", "send": ["report", "measurements", "heatmap"]}
DAY_S = 86_400.0


@dataclass
class Node:
    """A node without a network: images in, what is due taken out by hand."""

    config: Config
    clock: Clock
    ledger: Ledger
    sent: dict[str, bytes] = field(default_factory=dict)
    probability: float = 0.97

    @property
    def spool(self) -> Spool:
        return Spool(self.config.spool.path)

    def comes(self, number: int, **overrides: Any) -> None:
        part = self.spool.begin()
        part.write(studies.source(number, **overrides))
        ref = header.inspect(part.path).ref
        stored = self.spool.store_object(part, self.clock())
        origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=stored.at)
        assert self.ledger.add(ref, origin, stored.sha256, stored.size_bytes)

    @property
    def worker(self) -> Worker:
        predictor = builders.FixedPredictor(probability=self.probability)
        analyser = Analyser(
            process=lambda content, origin, config, precedent: pipeline.process(
                content, origin, predictor, config, precedent
            ),
            report=study_pipeline.report_study,
        )
        return Worker(self.config, self.ledger, self.spool, "me", analyser)

    def answers(self) -> dict[str, bytes]:
        """Judge, report once it is ripe, and send; what went that had not gone before."""
        worker = self.worker
        for _ in range(2):
            while worker.do_one():
                pass
            self.clock.forward(self.config.study.max_wait_s)
        new: dict[str, bytes] = {}
        while (job := self.ledger.claim_delivery("pacs", "sender", 60.0)) is not None:
            content = self.spool.read(Area.RESULTS, job.artifact.content_sha256)
            uid = job.artifact.sop_instance_uid
            assert self.sent.get(uid, content) == content, "other bytes under the same UID"
            new |= {} if uid in self.sent else {uid: content}
            self.sent[uid] = content
            assert self.ledger.settle_delivered(job, 0x0000)
        return new

    def loses_its_ledger(self) -> None:
        self.ledger.close()
        workplace.lose(self.config)
        self.ledger = Ledger(Ledger.of_node(self.config).database, self.clock)
        assert recovery.rebuild(self.ledger, self.spool, header.identify).received


@contextmanager
def opened(folder: Path, **sections: Any) -> Iterator[Node]:
    clock = Clock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    content = {"spool": {"path": str(folder / "spool"), "min_free_mib": 0}, "destinations": [PACS]}
    config = loader.parse(content | {"results": {"max_heatmap_px": 1024}} | sections)
    node = Node(config, clock, Ledger(Ledger.of_node(config).database, clock))
    with closing(node.ledger):
        yield node
        node.ledger.close()


def test_a_rebuilt_ledger_makes_the_same_chain_of_reports(tmp_path: Path, engine: dict[str, Any]) -> None:
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.comes(2, ViewPosition="LL")
        assert len(node.answers()) == 3
        node.comes(3)
        assert len(node.answers()) == 3, "a report that replaces the first, and a picture"
        node.comes(4)
        assert len(node.answers()) == 3
        before = dict(node.sent)
        node.loses_its_ledger()
        assert node.answers() == {}, "all images at once, and no other report than the last"
        node.comes(5)
        fourth = node.answers()
        assert len(fourth) == 3
        node.loses_its_ledger()
        assert node.answers() == {}, "it names those of before the first loss, and is made again the same"
        assert node.sent == before | fourth


def test_without_a_ledger_of_old_other_answers_still_replace_what_was_sent(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.answers()
        node.probability = 0.03
        operator_moves.rejudge(node.ledger, [1], by="anna")
        changed = node.answers()
        assert len(changed) == 2
        node.loses_its_ledger()
        assert node.answers() == {}


def test_an_image_that_comes_back_is_in_a_report_that_replaces_the_others(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.answers()
        node.comes(2)
        node.answers()
        node.comes(3)
        while node.worker.do_one():
            pass
        set_aside.set_aside(node.ledger, [3], SetAsideReason.WRONG_PATIENT, by="anna")
        assert node.answers() == {}
        operator_moves.rejudge(node.ledger, [3], by="anna")
        assert len(node.answers()) == 3
        node.loses_its_ledger()
        assert node.answers() == {}


def test_a_lateral_is_listed_for_as_long_as_its_report_is_kept(tmp_path: Path, engine: dict[str, Any]) -> None:
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.comes(2, ViewPosition="LL")
        node.answers()
        node.clock.forward(2 * DAY_S)
        assert retention.sweep(node.ledger, node.spool, 30.0, 1.0) == 0
        node.loses_its_ledger()
        assert node.answers() == {}


def test_what_is_noted_of_a_study_goes_with_its_images(tmp_path: Path, engine: dict[str, Any]) -> None:
    with opened(tmp_path, **engine) as node:
        for number in (1, 2):
            node.comes(number)
            node.answers()
        assert len(list((node.spool.path / Area.OBJECTS).rglob("*.note"))) == 2
        for instance_id in (1, 2):
            retention.erase(node.ledger, node.spool, instance_id, 0.0)
        assert [path for area in Area for path in (node.spool.path / area).rglob("*") if path.is_file()] == []


def test_what_a_worker_noted_before_it_died_was_never_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]
) -> None:
    """The late image is set aside then: no report that has it was sent, and nothing may name one."""
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.answers()
        node.comes(2)
        with monkeypatch.context() as patched:
            patched.setattr(study_rows, "settle_study", lambda *_: False)
            assert node.answers() == {}
        assert list((node.spool.path / Area.OBJECTS).rglob("*.note"))
        set_aside.set_aside(node.ledger, [2], SetAsideReason.WRONG_PATIENT, by="anna")
        node.clock.forward(3600)
        assert node.answers() == {}, "the first report stands"
