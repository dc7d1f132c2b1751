"""Lists and counts look things up: no query walks through the whole ledger to show its newest rows."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from cxr_node.dicom.read import header
from cxr_node.domain import Verdict
from cxr_node.node.ledger import listing, queries
from cxr_node.node.ledger.listing import By, Wanted
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.ledger.tables import instances
from tests import builders
from tests.node import ledgers

NOW = datetime(2026, 7, 1, tzinfo=UTC)
LOOKED_UP = {
    "nothing": Wanted(),
    "state": Wanted(state=InstanceState.DELIVERED),
    "verdict": Wanted(verdict=Verdict.INDETERMINATE),
    "reason": Wanted(reason="not-a-chest"),
    "abstain_reason": Wanted(reason="views-disagree"),
    "sender": Wanted(sender="A"),
    "station": Wanted(station="A"),
    "time": Wanted(since=NOW - timedelta(days=1), until=NOW),
    "sender and time": Wanted(sender="A", since=NOW - timedelta(days=1)),
    "state and time": Wanted(state=InstanceState.DELIVERED, since=NOW - timedelta(days=1), until=NOW),
    "dead there": Wanted(state=InstanceState.DEAD, destination="pacs"),
    "accession": Wanted(key="ACC-7", accession_keys=("a" * 64, "b" * 64)),
    "uid": Wanted(key="1.2.3"),
    "delivery": Wanted(key="delivery=3"),
}


@pytest.mark.parametrize("wanted", LOOKED_UP.values(), ids=LOOKED_UP.keys())
def test_a_list_is_read_off_an_index_in_the_order_of_the_ids(tmp_path: Path, wanted: Wanted) -> None:
    with ledgers.opened("sqlite", tmp_path, ledgers.Clock()) as ledger:
        query = sa.select(instances).where(listing.condition(wanted)).order_by(instances.c.id.desc()).limit(50)
        text = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
        with ledger.database.reading() as connection:
            plan = [row.detail for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))]
    scans = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
    assert scans == (["SCAN instances"] if wanted == Wanted() else []), plan
    if wanted.key is None and wanted.destination is None:
        assert not any("TEMP B-TREE" in step for step in plan), plan


def test_of_many_images_the_last_of_each_sender_and_station_are_found(tmp_path: Path) -> None:
    clock = ledgers.Clock()
    with ledgers.opened("sqlite", tmp_path, clock) as ledger:
        for number in range(1, 31):
            clock.forward(60)
            station = f"XR{number % 3}" if number % 2 else None
            ref = ledgers.reference(number, station_name=station)
            assert ledger.add(ref, ledgers.origin(clock), ledgers.digest(number), 5)
        found = listing.last_received(ledger, By.STATION)
        (sender,) = listing.last_received(ledger, By.SENDER).items()
        oldest = listing.oldest_instance(ledger)
    assert list(found) == ["XR2", "XR0", "XR1"]
    assert sender == ("MODALITY", clock())
    assert oldest is not None
    assert (oldest.number, oldest.waiting) == (1, 30)


@pytest.mark.parametrize(
    ("written", "character_set", "name"),
    [
        ("XR-ROOM 1", "ISO_IR 100", "XR-ROOM 1"),
        ("Röntgen Süd", "ISO_IR 100", "Rontgen Sud"),
        ("Röntgen Süd", "ISO_IR 192", "Rontgen Sud"),
        ("番号1", "ISO_IR 192", "??1"),
        ("A-STATION-NAME-THAT-IS-TOO-LONG", "ISO_IR 100", "A-STATION-NAME-T"),
        ("", "ISO_IR 100", None),
        ("   ", "ISO_IR 100", None),
        ("A\tB\x1b[31m", "ISO_IR 100", None),
    ],
)
def test_the_station_name_of_an_image_is_a_plain_name(
    tmp_path: Path, written: str, character_set: str, name: str | None
) -> None:
    with warnings.catch_warnings(action="ignore"):  # 40 characters in an SH
        content = builders.part10(builders.radiograph(SpecificCharacterSet=character_set, StationName="@" * 40))
    encoded = written.encode("utf-8" if character_set == "ISO_IR 192" else "latin-1")
    file = tmp_path / "a.dcm"
    file.write_bytes(content.replace(b"@" * 40, encoded.ljust(40)))
    station = header.inspect(file).ref.station_name
    if "\x1b" in written:
        assert station is not None
        assert station.isprintable()
        assert station.startswith("AB")
    else:
        assert station == name
    source = header.read(file.read_bytes())
    assert isinstance(source, header.Source)
    assert source.ref.station_name == station, "received and judged, it is one reference"


def test_figures_side_by_side_are_of_one_moment(tmp_path: Path) -> None:
    clock = ledgers.Clock()
    with ledgers.opened("sqlite", tmp_path, clock) as ledger:
        assert ledger.add(ledgers.reference(1), ledgers.origin(clock), ledgers.digest(1), 5)
        with ledger.database.one_view():
            assert queries.counts(ledger)[InstanceState.RECEIVED] == 1
            assert ledger.add(ledgers.reference(2), ledgers.origin(clock), ledgers.digest(2), 5)
            assert queries.counts(ledger)[InstanceState.RECEIVED] == 1
            assert len(queries.recent(ledger, 5)) == 1
        assert queries.counts(ledger)[InstanceState.RECEIVED] == 2
