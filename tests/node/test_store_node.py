"""A node on each kind of store: received, judged, sent, its store away for a while, its ledger lost, retention."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.node.deliver import retention
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.operator_moves import ADMITTED
from cxr_node.node.receive.recovery import Rebuilt, discard_orphans, rebuild
from cxr_node.node.spool.opening import open_spool
from cxr_node.node.spool.spool import Area
from tests.node import peers, wire, workplace
from tests.node.buckets import Place
from tests.node.receivers import receiving
from tests.node.test_crash import all_delivered, running
from tests.node.test_receive import instance
from tests.node.test_recovery import inspect, lose_all
from tests.node.wire import Wire


def test_success_means_stored_and_a_store_that_is_away_means_out_of_resources(place: Place) -> None:
    uid, data_set = instance()
    folder = place.folder if place.kind == "file" else place.local  # type: ignore[union-attr]
    with receiving(folder, store=place.configured()) as node, Wire(node.port) as peer:
        peer.associate()
        if place.kind != "file":  # without its folder that node has no ledger either
            with place.away():
                assert peer.store(uid, data_set) == 0xA700
        assert peer.store(uid, data_set) == 0x0000
        (digest,) = node.spool.digests(Area.OBJECTS)
        assert wire.DX.encode() in node.spool.read(Area.OBJECTS, digest)
        received_at = node.spool.received_at(digest)
        assert peer.store(uid, data_set) == 0x0000
        assert node.spool.received_at(digest) == received_at
        assert node.parts() == []


@pytest.mark.timeout(180)
def test_a_lost_ledger_is_rebuilt_from_the_store(place: Place, tmp_path: Path) -> None:
    """The same UIDs and bytes; what was noted beside an object counts; what no row wants goes."""
    archive, images = peers.Archive(), 3
    with peers.listening(archive) as address:
        spool_section = {"path": str(tmp_path / "spool"), "min_free_mib": 0, "store": place.configured()}
        if place.kind == "file":
            spool_section["path"] = str(tmp_path / "store")
        config = workplace.config(tmp_path, address, spool=spool_section)
        workplace.receive(config, *range(images))
        with running(config, "work", "deliver"):
            assert all_delivered(config, images)
        before = archive.digests()
        spool = open_spool(config.spool)
        spool.note(workplace.digest(b"radiograph 1"), ADMITTED, "2026-03-01T12:00:00+00:00", Area.OBJECTS)
        lose_all(config.spool.path / FILE_NAME)
        with closing(Ledger.open(config.spool.path, repair=True)) as ledger:
            assert rebuild(ledger, spool, inspect) == Rebuilt(objects=images, received=images, unreadable=0)
            with ledger.database.reading() as connection:
                admitted = connection.exec_driver_sql("SELECT content_sha256 FROM instances WHERE admitted_at NOTNULL")
                assert [row[0] for row in admitted] == [workplace.digest(b"radiograph 1")]
        with running(config, "work", "deliver"):
            assert all_delivered(config, images)
        assert len(before) == images * len(STANDARD_KINDS)
        assert archive.digests() == before, "another UID, or other bytes"
        with closing(Ledger.open(config.spool.path)) as ledger:
            orphan = spool.store_result(b"of no instance").sha256
            assert discard_orphans(ledger, spool) == 0, "it is younger than a day"
            assert spool.has(Area.RESULTS, orphan)
            spool.delete(Area.RESULTS, orphan)
            assert retention.sweep(ledger, spool, 0.0) == images
    assert [name for name in place.names() if name.endswith((".dcm", ".note"))] == []
