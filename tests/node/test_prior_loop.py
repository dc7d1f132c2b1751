"""The thread that fetches earlier radiographs, against archives of every temper, and the node's processes around it."""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.domain import Origin
from cxr_node.errors import ResourceError
from cxr_node.node.deliver import courier, prior_loop
from cxr_node.node.deliver.fetching import Fetching
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.deliver.prior_loop import PriorLoop, PriorTools
from cxr_node.node.ledger import prior_orders
from cxr_node.node.ledger.lease_keeper import LeaseKeeper
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.prior_orders import PriorOutcome
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.states import OrderState
from cxr_node.node.priors.query import Wanted
from cxr_node.node.priors.retrieve import PriorScu
from cxr_node.node.process.notify import Role, notify
from cxr_node.node.spool.spool import Area, Spool
from tests.forks import FORKS
from tests.node import ledgers, peers, workplace
from tests.node.test_priors import EXPLICIT, WANTED, Source, answer, listening, prior
from tests.patience import FOR_EVER_S, PATIENCE_S


@dataclass
class Deliverer:
    """A ledger whose studies have orders, and the loop that fetches them."""

    config: Config
    ledger: Ledger
    spool: Spool
    keeper: LeaseKeeper
    whose: Wanted | None = WANTED

    def orders(self, number: int = 1, max_wait_s: float = 120.0) -> str:
        """Study `number` is judged and waits; its UID."""
        part = self.spool.begin()
        part.write(f"radiograph {number}".encode())
        now = datetime.now(UTC)
        stored = self.spool.store_object(part, now)
        ref = ledgers.reference(number)
        origin = Origin(calling_ae_title="MODALITY", peer_host="10.0.0.7", received_at=now)
        self.ledger.add(ref, origin, stored.sha256, stored.size_bytes)
        job = self.ledger.claim_instance("me", 60.0)
        assert job is not None
        ripening = Ripening(quiet_s=15.0, max_wait_s=max_wait_s, with_priors=True)
        judged = Judged(text="{}", is_listed=False, ripening=ripening)
        assert self.ledger.settle_reported(job, ledgers.finding(), [], {}, judged)
        return ref.study_instance_uid

    def loop(self, owner: str = "host/deliver-0") -> PriorLoop:
        context = DeliveryContext(
            config=self.config, ledger=self.ledger, spool=self.spool, owner=owner, keeper=self.keeper
        )
        source = self.config.destinations[0]
        assert isinstance(source, DicomDestination)
        assert self.config.priors is not None
        return PriorLoop(context, self.config.priors, source, self.tools)

    @property
    def tools(self) -> PriorTools:
        return PriorTools(wanted=self.read, transfer_syntaxes=[EXPLICIT])

    def read(self, content: bytes) -> Wanted | None:
        assert content.startswith(b"radiograph ")
        return self.whose

    def outcomes(self, study: str) -> list[PriorOutcome]:
        found = prior_orders.prior_of(self.ledger, study)
        assert found is not None
        assert found.state is OrderState.SETTLED
        assert found.lease_owner is None
        return list(found.outcomes)


@contextmanager
def deliverer(folder: Path, address: Address, timeout_s: float = PATIENCE_S, **sections: Any) -> Iterator[Deliverer]:
    destination = {"name": "pacs", "address": str(address), "timeout_s": timeout_s}
    priors = {"priors": {"from": "pacs", "studies": 2}}
    config = workplace.config(folder / "spool", destinations=[destination], **priors | sections)
    with (
        closing(Ledger.open(config.spool.path)) as ledger,
        closing(LeaseKeeper(ledger, 60.0)) as keeper,
    ):
        yield Deliverer(config, ledger, Spool(config.spool.path), keeper)


def test_what_comes_is_in_the_spool_and_the_order_settled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        loop = node.loop()
        loop.do_one()
        (outcome,) = node.outcomes(study)
        assert outcome.reason is None
        content = node.spool.read(Area.PRIORS, outcome.content_sha256 or "")
        assert dcmread(io.BytesIO(content)) == prior()
        assert list((node.config.spool.path / "incoming").iterdir()) == []
        asked = len(source.asked)
        assert loop.do_one().seconds > 1
        assert len(source.asked) == asked, "one order, one try"
    (line,) = [record for record in caplog.records if record.name.endswith("prior_loop")]
    assert line.levelno == logging.INFO
    assert "earlier radiographs source=pacs instance=1 attempt=1 fetched=1" in line.getMessage()
    assert "CANARY" not in caplog.text
    ledger_bytes = b"".join(path.read_bytes() for path in (tmp_path / "spool").glob("ledger*"))
    assert b"CANARY" not in ledger_bytes
    assert b"19500102" not in ledger_bytes


@pytest.mark.parametrize(
    ("source", "reason", "level"),
    [
        (Source(STUDY=[]), "none", logging.INFO),
        (Source(STUDY=[answer("STUDY", IssuerOfPatientID="THERE")]), "other-issuer", logging.INFO),
        (Source(IMAGE=[answer("IMAGE", ViewPosition="LL")]), "not-found", logging.INFO),
    ],
)
def test_who_has_none_is_reported_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: Source, reason: str, level: int
) -> None:
    caplog.set_level(logging.INFO)
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        node.loop().do_one()
        (outcome,) = node.outcomes(study)
    assert (outcome.content_sha256, outcome.reason) == (None, reason)
    assert [record.levelno for record in caplog.records if record.name.endswith("prior_loop")] == [level]


def test_what_cannot_be_moved_is_not_waited_for(tmp_path: Path) -> None:
    source = Source()
    source.objects = []
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        node.loop().do_one()
        assert [each.reason for each in node.outcomes(study)] == ["cannot-retrieve"]


def test_a_source_that_is_down_is_asked_once_and_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with deliverer(tmp_path, peers.nobody(), FOR_EVER_S) as node:
        first, second = node.orders(1), node.orders(2)
        loop = node.loop()
        begun = time.monotonic()
        loop.do_one()
        loop.do_one()
        assert time.monotonic() - begun < PATIENCE_S
        assert [each.reason for each in node.outcomes(first)] == ["unreachable"]
        assert "a moment ago" in (node.outcomes(second)[0].sentence or "")
        third = node.orders(3)
        loop.forget_failures()
        loop.do_one()
        assert "a moment ago" not in (node.outcomes(third)[0].sentence or "")
    assert {record.levelno for record in caplog.records if record.name.endswith("prior_loop")} == {logging.WARNING}


def test_a_mute_source_has_as_long_as_its_study_waits(tmp_path: Path) -> None:
    def mute(connection: Any) -> None:
        while connection.recv(65536):
            pass

    with peers.raw_peer(mute) as address, deliverer(tmp_path, address, FOR_EVER_S) as node:
        study = node.orders(max_wait_s=1.5)
        begun = time.monotonic()
        node.loop().do_one()
        assert time.monotonic() - begun < PATIENCE_S
        assert [each.reason for each in node.outcomes(study)] == ["unreachable"]


def test_an_order_that_comes_too_late_asks_nothing(tmp_path: Path) -> None:
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders(max_wait_s=0.0)
        node.loop().do_one()
        assert [each.reason for each in node.outcomes(study)] == ["timeout"]
    assert source.asked == []


def test_an_image_that_is_gone_or_unreadable_asks_nothing(tmp_path: Path) -> None:
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        unreadable, gone = node.orders(1), node.orders(2)
        node.whose = None
        node.loop().do_one()
        assert [each.reason for each in node.outcomes(unreadable)] == ["not-asked"]
        node.spool.delete(Area.OBJECTS, workplace.digest(b"radiograph 2"))
        node.loop().do_one()
        assert [each.reason for each in node.outcomes(gone)] == ["not-asked"]
    assert source.asked == []


DEATHS = {
    "claimed": (prior_orders, "claim_order"),
    "fetched": (PriorScu, "fetch"),
    "stored": (Spool, "store_prior"),
    "settled": (prior_orders, "settle_order"),
    "noticed": (prior_loop, "wake"),
}
"""After which call a process is killed."""


def fetch_and_die(config: Config, death: str) -> None:
    """Be the process that fetches, and die."""
    owner, name = DEATHS[death]
    genuine = getattr(owner, name)

    def dying(*arguments: Any, **keywords: Any) -> None:
        genuine(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)
    with closing(Ledger.open(config.spool.path)) as ledger, closing(LeaseKeeper(ledger, 60.0)) as keeper:
        Deliverer(config, ledger, Spool(config.spool.path), keeper).loop().do_one()


@pytest.mark.parametrize("death", DEATHS)
def test_killed_anywhere_there_is_one_order_and_one_file(tmp_path: Path, death: str) -> None:
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        process = FORKS.Process(target=fetch_and_die, args=(node.config, death))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        node.loop().do_one()  # a process of that name begins
        node.spool.sweep()
        (outcome,) = node.outcomes(study)
        assert outcome.reason is None
        assert dcmread(io.BytesIO(node.spool.read(Area.PRIORS, outcome.content_sha256 or ""))) == prior()
        assert list(node.spool.digests(Area.PRIORS)) == [outcome.content_sha256]
        assert list((node.config.spool.path / "incoming").iterdir()) == []


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_ledger_that_was_lost_has_the_same_again(tmp_path: Path, is_lost: bool) -> None:
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        part = node.spool.begin()
        part.write(b"then")
        before = node.spool.store_prior(part).sha256
        study, other = node.orders(1), node.orders(2)
        node.spool.note(workplace.digest(b"radiograph 1"), prior_orders.NOTE, before, Area.OBJECTS)
        node.spool.note(workplace.digest(b"radiograph 2"), prior_orders.NOTE, prior_orders.NONE, Area.OBJECTS)
        if is_lost:
            node.spool.delete(Area.PRIORS, before)
        node.loop().do_one()
        assert [each.content_sha256 == before for each in node.outcomes(study)] == [not is_lost]
        asked = len(source.asked)
        assert bool(asked) == is_lost
        node.loop().do_one()
        assert [each.content_sha256 for each in node.outcomes(other)] == [None]
        assert len(source.asked) == asked


def test_what_processes_die_of_is_not_tried_for_ever(tmp_path: Path) -> None:
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        for _ in range(node.config.work.max_attempts):
            prior_orders.claim_order(node.ledger, "host/deliver-0", 60.0)
            prior_orders.free(node.ledger, "host/deliver-0")
        node.loop().do_one()
        assert [each.reason for each in node.outcomes(study)] == ["fault"]
    assert source.asked == []


def test_a_ledger_or_disk_that_fails_gives_the_order_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Source()) as address, deliverer(tmp_path, address) as node:
        study = node.orders()
        loop = node.loop()

        def full(*_: object) -> None:
            raise ResourceError("spool: full")

        with monkeypatch.context() as patched:
            patched.setattr(Spool, "store_prior", full)
            with pytest.raises(ResourceError):
                loop.do_one()
        assert list((node.config.spool.path / "incoming").iterdir()) == []
        assert prior_orders.next_order_s(node.ledger) == pytest.approx(5.0, abs=1.0)
        node.ledger.now = lambda: datetime.now(UTC) + timedelta(seconds=6)
        loop.do_one()
        assert [each.reason for each in node.outcomes(study)] == [None]


def test_a_disk_below_its_watermark_takes_none(tmp_path: Path) -> None:
    spool = {"path": str(tmp_path / "spool"), "min_free_mib": 10**9}
    source = Source()
    with listening(source) as address, deliverer(tmp_path, address, spool=spool) as node:
        study = node.orders()
        node.loop().do_one()
        assert "watermark" in (node.outcomes(study)[0].sentence or "")
    assert source.asked == []


@contextmanager
def delivering(node: Deliverer, tools: PriorTools | None) -> Iterator[None]:
    """The process that delivers, as a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(node.config, stop), kwargs={"fetching": Fetching(priors=tools)})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def test_the_process_wakes_up_for_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_loop, "LOOK_AFTER_S", FOR_EVER_S)
    with listening(Source()) as address, deliverer(tmp_path, address) as node, delivering(node, node.tools):
        assert workplace.eventually(lambda: notify(node.config.spool.path, Role.DELIVER) == 2)
        study = node.orders()
        notify(node.config.spool.path, Role.DELIVER)
        assert workplace.eventually(lambda: prior_orders.next_order_s(node.ledger) is None)
        assert len(node.outcomes(study)) == 1


@pytest.mark.parametrize(("configured", "sockets"), [({}, 2), ({"priors": None}, 1)])
def test_without_priors_in_the_configuration_no_thread_is_started(
    tmp_path: Path, configured: dict[str, Any], sockets: int
) -> None:
    with (
        listening(Source()) as address,
        deliverer(tmp_path, address, **configured) as node,
        delivering(node, node.tools),
    ):
        assert workplace.eventually(lambda: notify(node.config.spool.path, Role.DELIVER) == sockets)
        assert [each.name for each in threading.enumerate()].count("pacs") == sockets
