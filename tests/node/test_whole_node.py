"""An operator at any machine acts on the whole node; and an image has the same results wherever it was judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from cxr_node import pipeline, study_pipeline, wiring
from cxr_node.cli import operate
from cxr_node.cli.node import app
from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.domain import Origin
from cxr_node.node.audit import recorder
from cxr_node.node.audit.recorder import trail_folder
from cxr_node.node.ledger import destination_health, queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import DeadReason, InstanceState
from cxr_node.node.ledger.tables import artifacts
from cxr_node.node.ledger.wake import listening
from cxr_node.node.process.notify import Role, Wakeup
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area
from cxr_node.node.work.worker import Analyser, Worker
from tests import postgres
from tests.builders import part10, radiograph
from tests.node import workplace
from tests.node.ledgers import reference
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
PACS = "pacs"
UID = reference(1).sop_instance_uid


class Machine:
    """One of two that share a ledger and a store, with a configuration file of its own."""

    def __init__(self, folder: Path, name: str, section: dict[str, str], **sections: Any) -> None:
        self.file = folder / f"{name}.yaml"
        store = {"kind": "posix", "path": str(folder / "share")}
        content = {
            "spool": {"path": str(folder / name), "min_free_mib": 0, "store": store},
            "ledger": section,
            "destinations": [{"name": PACS, "address": "PACS@127.0.0.1:1", "report_per": "image"}],
        }
        self.file.write_text(yaml.safe_dump(content | sections))
        self.config = loader.load(self.file)
        self.spool = open_spool(self.config.spool)
        self.spool.store.prepare()
        self.ledger = Ledger.of_node(self.config)
        self.owner = f"{self.ledger.database.machine}/work-0"

    def work(self, analyser: Analyser | None = None) -> None:
        worker = Worker(self.config, self.ledger, self.spool, self.owner, analyser or workplace.analyser())
        while worker.do_one():
            pass

    def told(self, *words: str, code: int = 0) -> str:
        """What a command says that is given here."""
        said = CliRunner().invoke(app, [*words, "--config", str(self.file)])
        assert said.exit_code == code, said.output
        return said.output

    def deliver(self) -> int:
        """Let the destination accept what is due; how many objects."""
        number = 0
        while (job := self.ledger.claim_delivery(PACS, self.owner, 60.0)) is not None:
            assert self.ledger.settle_delivered(job, 0)
            number += 1
        return number

    def state(self) -> InstanceState:
        (story,) = queries.trace(self.ledger, UID)
        return story.instance.state

    def audited(self) -> str:
        return "".join(path.read_text() for path in trail_folder(self.config).segments())


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    (tmp_path / "share").mkdir()
    section = postgres.section(tmp_path)
    found = Machine(tmp_path, "here", section), Machine(tmp_path, "there", section)
    workplace.receive(found[0].config, 1)
    yield found
    for each in found:
        each.ledger.close()


def test_retry_given_elsewhere_wakes_the_worker_here(two: tuple[Machine, Machine]) -> None:
    here, there = two
    job = here.ledger.claim_instance(here.owner, 60.0)
    assert job is not None
    here.ledger.settle_dead(job, DeadReason.FAULT, "three workers died of it")
    path = here.config.spool.path
    with closing(Wakeup(path, Role.WORK)) as worker, listening(here.ledger, path, Role.WORK):
        assert worker.wait(PATIENCE_S), "it listens"
        assert "1 back in the queue" in there.told("retry", UID)
        assert worker.wait(PATIENCE_S)
    here.work()
    assert here.state() is InstanceState.REPORTED


def test_results_are_sent_again_and_judged_again_whoever_is_told(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.work()
    assert (here.deliver(), here.state()) == (3, InstanceState.DELIVERED)
    assert "3 objects are due again" in there.told("resend", UID)
    assert (here.deliver(), here.state()) == (3, InstanceState.DELIVERED)
    there.told("rejudge", UID)
    before = set(here.spool.digests(Area.RESULTS))
    here.work()
    assert (here.state(), here.deliver()) == (InstanceState.DELIVERED, 0), "the same answer is not sent twice"
    assert set(here.spool.digests(Area.RESULTS)) == before


def test_a_hold_holds_every_machine_and_now_reaches_all(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.work()
    there.told("hold", PACS, "--reason", "maintenance")
    assert here.deliver() == 0
    assert f"{PACS} is held" in there.told("trace", UID)
    before = destination_health.nudges(here.ledger, PACS)
    there.told("release", PACS)
    assert destination_health.nudges(here.ledger, PACS) == before + 1
    job = here.ledger.claim_delivery(PACS, here.owner, 60.0)
    assert job is not None
    assert here.ledger.postpone(job, delay_s=3600.0, status=None, detail="no answer")
    assert f"{PACS}: 3 objects are due now" in there.told("now", PACS, code=1), "though no deliver runs anywhere"
    assert here.deliver() == 3


def test_what_another_machine_has_in_hand_is_not_torn_from_it(
    two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "_PATIENCE_S", 0.0)
    here, there = two
    job = here.ledger.claim_instance(here.owner, 60.0)
    assert job is not None
    assert f"it is being judged now by {here.owner}" not in there.told("trace", UID), "work does not run there"
    assert "is being judged or sent right now" in there.told("erase", UID, "--yes", code=1)
    assert "are being judged or sent right now" in there.told("set-aside", UID, "--reason", "test-image", code=1)
    here.ledger.release(job, delay_s=0.0, detail="a test")
    there.told("set-aside", UID, "--reason", "test-image")
    assert here.state() is InstanceState.SET_ASIDE
    there.told("erase", UID, "--yes")
    assert queries.trace(here.ledger, UID) == []
    assert not list(here.spool.digests(Area.OBJECTS))


def test_an_erasure_that_died_on_another_machine_is_waited_for(two: tuple[Machine, Machine]) -> None:
    """Its lease has that machine's name: who erases here does not take it for an own one."""
    here, there = two
    held = here.ledger.claim_instance(f"{here.ledger.database.machine}/erase", 60.0)
    assert held is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(operate, "_PATIENCE_S", 0.0)
        assert "right now" in there.told("erase", UID, "--yes", code=1)
        here.told("erase", UID, "--yes")
    assert queries.trace(there.ledger, UID) == []


def test_each_act_is_in_the_trail_of_the_machine_where_it_was_given(two: tuple[Machine, Machine]) -> None:
    here, there = two
    there.told("hold", PACS)
    source = f'AuditSourceID="cxr-node@{there.ledger.database.machine}"'
    assert source in there.audited()
    assert f"destination {PACS} is held" in there.audited()
    assert here.audited() == ""
    assert recorder.source_id(here.config) == f"cxr-node@{here.ledger.database.machine}"


def test_one_machine_names_the_node_alone_in_its_trail(tmp_path: Path) -> None:
    assert recorder.source_id(workplace.config(tmp_path)) == "cxr-node"
    assert recorder.source_id(workplace.config(tmp_path, audit={"source_id": "cxr-1"})) == "cxr-1"


def genuine(config: Config) -> Analyser:
    """What the worker of the program does."""
    classifier = wiring.classifier(config)
    return Analyser(
        process=lambda content, origin, config, precedent: pipeline.process(
            content, origin, classifier, config, precedent
        ),
        report=study_pipeline.report_study,
        rules_sha256=pipeline.rules_sha256(classifier, config),
    )


def test_an_image_and_its_study_have_the_same_results_wherever_they_are_judged(tmp_path: Path) -> None:
    """By the network and the builders of the node: UIDs and bytes say nothing of the machine."""
    (tmp_path / "share").mkdir()
    section, study = postgres.section(tmp_path), {"quiet_s": 0, "max_wait_s": 0}
    to = [{"name": PACS, "address": "PACS@127.0.0.1:1"}]
    here, there = (
        Machine(tmp_path, name, section, study=study, destinations=to, audit={"source_id": name})
        for name in ("here", "there")
    )
    content = part10(radiograph(1))
    part = here.spool.begin()
    part.write(content)
    stored = here.spool.store_object(part, here.ledger.now())
    origin = Origin(calling_ae_title="XR1", peer_host="10.0.0.7", received_at=stored.at)
    with here.spool.as_file(Area.OBJECTS, stored.sha256) as path:
        here.ledger.add(header.identify(path), origin, stored.sha256, stored.size_bytes)
    made = []
    for each in (here, there):
        each.work(genuine(each.config))
        made.append({digest: each.spool.read(Area.RESULTS, digest) for digest in each.spool.digests(Area.RESULTS)})
        each.told("rejudge", "1")
    assert made[0] == made[1]
    assert len(made[0]) >= 3
    with there.ledger.database.reading() as connection:
        uids = list(connection.scalars(sa.select(artifacts.c.sop_instance_uid)))
    assert len(uids) == len(set(uids)) == len(made[0])
    (story,) = queries.trace(here.ledger, "instance=1")
    assert [event.what for event in story.events].count("reported") == 2, "each judged it"
    for each in (here, there):
        each.ledger.close()
