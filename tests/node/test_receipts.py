"""Arrivals that come at once share a transaction, and no fault of one is another's."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from cxr_node.errors import ResourceError
from cxr_node.node.ledger import database, queries
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from tests.node.ledgers import Clock, digest, origin, reference
from tests.node.test_receive import eventually

MANY = 8


class Held:
    """A ledger whose next commit waits, so that threads come meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.ledger = Ledger.open(folder, now=self.clock)
        self.commits = 0
        self.reached, self.go_on = threading.Event(), threading.Event()
        sa.event.listen(self.ledger.database.engine, "commit", self._commit)

    def _commit(self, _: sa.Connection) -> None:
        self.commits += 1
        self.reached.set()
        assert self.go_on.wait(20)

    def add(self, number: int, ae_title: str = "SENDER") -> bool:
        sender = replace(origin(self.clock), calling_ae_title=ae_title)
        return self.ledger.add(reference(number), sender, digest(number), 4711) is not None

    def begin(self, pool: ThreadPoolExecutor, *ae_titles: str) -> list[Future[bool]]:
        """One arrival whose commit is held, and one of each AE title that waits behind it."""
        first = pool.submit(self.add, 1)
        assert self.reached.wait(20)
        rest = [pool.submit(self.add, number, title) for number, title in enumerate(ae_titles, 2)]
        assert eventually(lambda: len(self.ledger._arrivals._waiting) == len(ae_titles))
        return [first, *rest]


def test_who_comes_while_another_waits_for_the_disk_shares_the_next_commit(tmp_path: Path) -> None:
    held = Held(tmp_path)
    with ThreadPoolExecutor(MANY) as pool:
        added = held.begin(pool, *["SENDER"] * (MANY - 1))
        assert not any(one.done() for one in added), "nobody is answered before the commit"
        held.go_on.set()
        assert [one.result(20) for one in added] == [True] * MANY
    assert held.commits == 2
    assert not held.add(3), "the same once more"
    assert len(queries.recent(held.ledger, 100)) == MANY
    held.ledger.close()


def test_what_one_cannot_be_written_for_is_not_the_others_fault(tmp_path: Path) -> None:
    held = Held(tmp_path)
    with ThreadPoolExecutor(MANY) as pool:
        added = held.begin(pool, "SENDER", "\udcff", "SENDER")
        held.go_on.set()
        assert [one.result(20) for one in (added[0], added[1], added[3])] == [True] * 3
        with pytest.raises(UnicodeEncodeError):
            added[2].result(20)
    assert len(queries.recent(held.ledger, 100)) == 3
    held.ledger.close()


def test_a_ledger_that_cannot_be_written_refuses_all_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    held = Held(tmp_path)
    held.go_on.set()
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(MANY) as pool:
        added = [pool.submit(held.add, number) for number in range(1, MANY)]
        for one in added:
            with pytest.raises(ResourceError):
                one.result(20)
    other.execute("ROLLBACK")
    other.close()
    assert held.add(1)
    held.ledger.close()


def test_an_escaped_title_fits_into_its_column(tmp_path: Path) -> None:
    held = Held(tmp_path)
    held.go_on.set()
    assert held.add(1, r"\xC4\xD6\xDC\xC4\xD6\xDC")
    (row,) = queries.recent(held.ledger, 1)
    assert row.calling_ae_title == r"\xC4\xD6\xDC\xC4"
