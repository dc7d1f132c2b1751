"""What a store of any kind promises: one contract for the folder, the share and the object store."""

from __future__ import annotations

import hashlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cxr_node.errors import ResourceError
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from tests.node.buckets import Place
from tests.node.stores import NOON, name_of

CONTENT = b"not a radiograph" * 1000
NAME = name_of(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LATER = NOON + timedelta(days=1, microseconds=1)
WRITERS = 16


def put(place: Place, content: bytes = CONTENT, **more: object) -> object:
    part = place.part(content)
    try:
        return place.open().put(name_of(content), part, **{"at": NOON, **more})  # type: ignore[arg-type]
    finally:
        part.discard()


def test_what_was_put_is_there(place: Place) -> None:
    assert place.open().exists(NAME) is None
    with pytest.raises(FileNotFoundError):
        place.open().get(NAME)
    assert put(place, at=LATER) == LATER
    assert place.open().get(NAME) == CONTENT
    found = place.open().exists(NAME)
    assert found is not None
    assert (found.size_bytes, found.at) == (len(CONTENT), LATER)
    assert place.names() == [NAME]


def test_the_first_time_counts(place: Place) -> None:
    assert put(place, at=LATER) == LATER
    assert put(place, at=NOON) == LATER
    found = place.open().exists(NAME)
    assert found is not None
    assert found.at == LATER
    assert place.names() == [NAME]


def test_a_repeat_renews_the_bytes(place: Place) -> None:
    """What is damaged is mended; and it is young again: a sweep of orphans must not take what was just put."""
    put(place)
    place.damage(NAME, b"bit rot")
    before = place.open().exists(NAME)
    put(place, at=LATER)
    after = place.open().exists(NAME)
    assert place.open().get(NAME) == CONTENT
    assert before is not None
    assert after is not None
    assert after.placed_at_s >= before.placed_at_s
    assert after.size_bytes == len(CONTENT)


def test_a_note_says_what_was_said_last(place: Place) -> None:
    name = f"objects/{SHA256[:2]}/{SHA256}.0123456789abcdef.note"
    for words in (b"one", b"two", b"a third"):
        part = place.part(words)
        try:
            assert place.open().put(name, part, LATER, replace=True) == LATER
        finally:
            part.discard()
        assert place.open().get(name) == words
    assert place.names() == [name]


def test_of_many_writers_one_wins_and_all_are_fine(place: Place) -> None:
    start, stores = threading.Barrier(WRITERS), [place.open() for _ in range(WRITERS)]

    def write(number: int) -> object:
        part = place.part(CONTENT)
        try:
            start.wait(10)
            return stores[number].put(NAME, part, NOON + timedelta(seconds=number))
        finally:
            part.discard()

    with ThreadPoolExecutor(WRITERS) as pool:
        times = list(pool.map(write, range(WRITERS)))
    assert place.names() == [NAME]
    assert place.open().get(NAME) == CONTENT
    found = place.open().exists(NAME)
    assert found is not None
    assert found.at in times
    if place.kind != "file":  # there the ledger says who was first, for all are one machine
        assert set(times) == {found.at}


def test_names_are_listed_in_order(place: Place) -> None:
    contents = [f"radiograph {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: put(place, content), contents))
    store = place.open()
    note = name_of(contents[0]).removesuffix("dcm") + "0123456789abcdef.note"
    part = place.part(b"words")
    store.put(note, part, NOON, replace=True)
    part.discard()
    names = sorted([*map(name_of, contents), note])
    assert list(store.list("objects/")) == names
    assert list(store.list(note.partition(".")[0] + ".")) == sorted([note, name_of(contents[0])])
    assert list(store.list("results/")) == []
    assert list(store.list("results/ab/ab")) == []


def test_deleting_twice_is_deleting(place: Place) -> None:
    put(place)
    for _ in range(2):
        place.open().delete(NAME)
        assert place.open().exists(NAME) is None
    assert place.names() == []


def test_a_reader_sees_all_or_nothing(place: Place) -> None:
    """While the same is put, put again, and deleted."""
    content = secrets.token_bytes(2_000_000)
    name, done, seen = name_of(content), threading.Event(), [0, 0]

    def read() -> None:
        store = place.open()
        while not done.is_set():
            try:
                assert store.get(name) == content
                seen[0] += 1
            except FileNotFoundError:
                seen[1] += 1

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(8):
                put(place, content)
                put(place, content)
                place.open().delete(name)
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert seen[0], "nothing was read: the test shows nothing"


def test_a_store_that_is_away_never_says_that_something_is_missing(place: Place) -> None:
    """A missing object is DEAD(spool-corrupt); a store that is away is waited for."""
    put(place)
    store, part = place.open(), place.part(b"more")
    with place.away():
        with pytest.raises(ResourceError):
            store.get(NAME)
        with pytest.raises(ResourceError):
            store.exists(NAME)
        with pytest.raises(ResourceError):
            list(store.list("objects/"))
        if place.kind != "file":
            with pytest.raises(ResourceError):
                store.put(name_of(b"more"), part, NOON)
    part.discard()
    assert store.get(NAME) == CONTENT
    assert set(place.names()) <= {NAME, name_of(b"more")}  # a service that hung may have taken what nobody acknowledged


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"?"], ids=["empty", "truncated", "changed"])
def test_a_spool_reads_no_damaged_bytes(place: Place, damage: bytes) -> None:
    put(place)
    assert place.spool().read(Area.OBJECTS, SHA256) == CONTENT
    place.damage(NAME, damage)
    with pytest.raises(SpoolCorruptError):
        place.spool().read(Area.OBJECTS, SHA256)
    place.open().delete(NAME)
    with pytest.raises(SpoolCorruptError):
        place.spool().read(Area.OBJECTS, SHA256)


def test_a_spool_works_on_it(place: Place) -> None:
    spool = place.spool()
    part = spool.begin()
    part.write(CONTENT)
    assert spool.store_object(part, NOON).at == NOON
    part.discard()
    big = secrets.token_bytes(3_000_000)
    result = spool.store_result(big)
    assert spool.read(Area.RESULTS, result.sha256) == big
    assert spool.has(Area.OBJECTS, SHA256)
    assert not spool.has(Area.RESULTS, SHA256)
    assert spool.received_at(SHA256) == NOON
    with spool.as_file(Area.OBJECTS, SHA256) as path:
        assert path.read_bytes() == CONTENT
    _notes_and_dates(place.spool(), spool)
    assert list(spool.digests(Area.OBJECTS)) == [SHA256]
    spool.delete(Area.OBJECTS, SHA256)
    spool.delete(Area.RESULTS, result.sha256)
    assert place.names() == []
    assert spool.received_at(SHA256) is None
    assert not list((spool.path / "incoming").iterdir())


def _notes_and_dates(spool: Spool, other: Spool) -> None:
    assert spool.noted(SHA256, "admitted", Area.OBJECTS) == ""
    for words in ("once", "twice"):
        spool.note(SHA256, "admitted", words, Area.OBJECTS)
        assert other.noted(SHA256, "admitted", Area.OBJECTS) == words
    spool.note(SHA256, "../other", "a note of its own", Area.OBJECTS)
    assert spool.noted(SHA256, "admitted", Area.OBJECTS) == "twice"
    spool.date(SHA256, LATER)
    assert other.received_at(SHA256) == LATER
    assert other.read(Area.OBJECTS, SHA256) == CONTENT
