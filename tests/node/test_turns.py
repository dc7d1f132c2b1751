"""A process that seldom writes gets its turn while another writes without pause, as a receiver in a burst does."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cxr_node.node.ledger import database
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.tables import instances
from tests.patience import eventually


def write_on(folder: Path, begun: Any) -> None:
    """Commit again and again; the lock is free between two commits for as long as Python needs to go round."""
    ledger = Ledger.open(folder)
    while True:
        with ledger.database.writing() as connection:
            connection.execute(sa.update(instances).values(attempts=1))
            time.sleep(0.005)  # as long as a disk takes, which is seldom so quick as the one of a test
        begun.set()


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """Run a process that writes without a pause."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=write_on, args=(folder, begun), daemon=True)
    process.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        process.kill()
        process.join()


def turns(begin: Callable[[], AbstractContextManager[object]]) -> int:
    """How often one gets to write in two seconds, with something else to do between; 0 where it never does."""
    until, found = time.monotonic() + 2.0, 0
    with suppress(sqlite3.OperationalError):  # locked for too long
        while time.monotonic() < until:
            time.sleep(0.005)
            with begin():
                found += 1
    return found


def test_a_worker_gets_its_turn_while_a_receiver_is_busy(tmp_path: Path) -> None:
    """Against SQLite's own way of waiting, in the same minute."""
    ledger = Ledger.open(tmp_path)
    plain = sqlite3.connect(tmp_path / FILE_NAME, timeout=2.0, isolation_level=None)

    @contextmanager
    def plainly() -> Iterator[None]:
        plain.execute("BEGIN IMMEDIATE")
        yield
        plain.execute("COMMIT")

    def gets_more() -> bool:
        ours, theirs = turns(ledger.database.leasing), turns(plainly)
        print(f"turns in 2 s beside a busy writer: {ours}, by SQLite's own waiting {theirs}")
        return ours > 2 * theirs

    with busy(tmp_path):
        assert eventually(gets_more)  # not at once where other programs leave neither of them a turn
    plain.close()
    ledger.close()


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_a_writer_that_takes_its_time_is_waited_for(tmp_path: Path, how: str) -> None:
    ledger = Ledger.open(tmp_path)
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, [how])
    timer.start()
    with ledger.database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 1000 * database.BUSY_TIMEOUT_S
    timer.join()
    other.close()
    ledger.close()
