"""A ledger's file that is damaged, gone or replaced: noticed by everybody, mended once, and nothing of it deleted."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cxr_node.errors import LedgerLostError, ResourceError
from cxr_node.node.ledger import database, queries, sqlite_file
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.node.process.notify import START
from tests import postgres
from tests.node import workplace
from tests.node.ledgers import Clock, digest, origin, reference

ROWS = 300
Damage = Callable[[Path], None]


def filled(folder: Path) -> Path:
    """A ledger of some 60 pages, all of it in the file itself."""
    clock = Clock()
    ledger = Ledger.open(folder, now=clock)
    for number in range(1, ROWS + 1):
        assert ledger.add(reference(number), origin(clock), digest(number), 4711)
    ledger.close()
    return folder / FILE_NAME


def overwrite(file: Path, share: float, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(int(file.stat().st_size * share) // 4096 * 4096)
        opened.write(content)


def cross_indexes(file: Path) -> None:
    """Each page is well-formed, but an index holds what another one should: rows are overlooked."""
    with closing(sqlite3.connect(file)) as connection:
        roots = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (by_study,) = connection.execute(roots, ("ix_instances_study_instance_uid",)).fetchone()
        (by_series,) = connection.execute(roots, ("ix_instances_series_instance_uid",)).fetchone()
        connection.execute("PRAGMA writable_schema=ON")
        change = "UPDATE sqlite_schema SET rootpage = ? WHERE name = ?"
        connection.execute(change, (by_series, "ix_instances_study_instance_uid"))
        connection.execute(change, (by_study, "ix_instances_series_instance_uid"))
        connection.commit()


DAMAGES: dict[str, Damage] = {
    "pages in the middle": lambda file: overwrite(file, 0.5, os.urandom(3 * 4096)),
    "no header": lambda file: overwrite(file, 0.0, b"no database" * 10),
    "cut short": lambda file: os.truncate(file, file.stat().st_size * 2 // 3),
    "indexes crossed": cross_indexes,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(tmp_path)
    damage(file)
    broken = file.read_bytes()
    ledger = Ledger.open(tmp_path, repair=True)
    assert queries.counts(ledger)[InstanceState.RECEIVED] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    ledger.close()
    (aside,) = tmp_path.glob(f"{FILE_NAME}.damaged-*")
    assert aside.read_bytes() == broken
    assert [record.levelname for record in caplog.records if "ledger damaged" in record.message] == ["ERROR"]


@pytest.mark.parametrize("damage", [DAMAGES["no header"]])
def test_a_command_that_only_looks_says_so_and_mends_nothing(tmp_path: Path, damage: Damage) -> None:
    file = filled(tmp_path)
    damage(file)
    with pytest.raises(LedgerLostError, match="not a database"):
        Ledger.open(tmp_path)
    assert not list(tmp_path.glob("*damaged*"))


def test_a_whole_and_a_new_file_are_left_alone(tmp_path: Path) -> None:
    assert sqlite_file.find_damage(tmp_path / FILE_NAME) is None
    file = filled(tmp_path)
    identity = file.stat().st_ino
    ledger = Ledger.open(tmp_path, repair=True)
    assert queries.counts(ledger)[InstanceState.RECEIVED] == ROWS
    ledger.close()
    assert file.stat().st_ino == identity


def test_of_those_that_start_together_one_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each that is started alone, as after its death: whoever noticed damage ends."""
    filled(tmp_path)
    looked: list[Path] = []
    monkeypatch.setattr(database, "set_damaged_aside", lambda file, _: looked.append(file))
    for start, expected in (("one", 1), ("one", 1), ("two", 2), ("", 3), ("", 4), ("two", 5), ("two", 5)):
        monkeypatch.setenv(START, start)
        Ledger.open(tmp_path, repair=True).close()
        assert len(looked) == expected, start


def test_a_large_file_gets_the_quick_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees broken pages too; only what the indexes leave out escapes it."""
    file = filled(tmp_path)
    cross_indexes(file)
    monkeypatch.setattr(sqlite_file, "FULL_CHECK_BYTES", 0)
    assert sqlite_file.find_damage(file) is None
    DAMAGES["pages in the middle"](file)
    assert sqlite_file.find_damage(file) is not None


@pytest.mark.parametrize("how", ["removed", "mended"])
def test_who_has_the_old_file_open_is_told(tmp_path: Path, how: str) -> None:
    """It would go on writing into a file that nobody will read again; what it wrote last was not acknowledged."""
    clock = Clock()
    file = filled(tmp_path)
    old = Ledger.open(tmp_path, now=clock)
    assert old.add(reference(1001), origin(clock), digest(1001), 4711)
    if how == "removed":
        file.unlink()
    else:
        DAMAGES["pages in the middle"](file)
        Ledger.open(tmp_path, repair=True).close()
    with pytest.raises(LedgerLostError):
        old.database.require_whole()
    with pytest.raises(LedgerLostError):
        old.add(reference(1002), origin(clock), digest(1002), 4711)
    old.close()


def test_the_old_file_s_last_user_does_not_hurt_the_new_one(tmp_path: Path) -> None:
    """SQLite's log is found by name: who closes the old file must not take the new one's log away."""
    clock = Clock()
    file = filled(tmp_path)
    old = Ledger.open(tmp_path, now=clock)
    queries.counts(old)
    DAMAGES["pages in the middle"](file)
    new = Ledger.open(tmp_path, now=clock, repair=True)
    assert new.add(reference(1), origin(clock), digest(1), 4711)
    old.close()
    assert new.add(reference(2), origin(clock), digest(2), 4711)
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM instances").fetchone() == (2,)
    new.close()


def test_damage_that_is_met_at_work_ends_the_work(tmp_path: Path) -> None:
    file = filled(tmp_path)
    ledger = Ledger.open(tmp_path)
    overwrite(file, 0.2, os.urandom(file.stat().st_size * 7 // 10))
    with pytest.raises(LedgerLostError):
        queries.recent(ledger, ROWS)
    with pytest.raises(LedgerLostError):  # and it stays so, whatever page is read next
        ledger.database.require_whole()
    ledger.close()


def test_damage_that_is_met_before_the_first_statement_ends_the_work(tmp_path: Path) -> None:
    """Already taking the write lock reads the file's head."""
    file = filled(tmp_path)
    ledger = Ledger.open(tmp_path)
    with closing(sqlite3.connect(file)) as other:  # nothing is left in the log, from which the head would be read
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(file, 0.0, os.urandom(file.stat().st_size))
    with pytest.raises(LedgerLostError), ledger.database.writing():
        pass
    ledger.close()


@pytest.mark.skipif(postgres.programs() is None, reason=postgres.HINT)
def test_damaged_pages_of_a_server_are_waited_for_and_nothing_is_set_aside(tmp_path: Path) -> None:
    """Only its operator can mend it, from a replica or a backup; until then nothing is acknowledged, nothing DEAD."""
    clock = Clock()
    with postgres.server() as server:
        config = workplace.config(tmp_path, ledger=postgres.section(tmp_path, server.url()))
        with closing(Ledger.of_node(config)) as ledger:
            for number in range(1, 6):
                assert ledger.add(reference(number), origin(clock), digest(number), 4711)
            file = server.folder / "data" / str(server.asked("SELECT pg_relation_filepath('instances')"))
            server.stop()
            whole = file.read_bytes()
            file.write_bytes(os.urandom(len(whole)))
            server.start()
            with suppress(ResourceError):  # the connection that was in use a moment ago is lost at its next use
                queries.counts(ledger)
            with pytest.raises(ResourceError, match="invalid page"):
                queries.recent(ledger, ROWS)
            with pytest.raises(ResourceError):
                ledger.claim_instance("me", 60.0)
            server.stop(signal.SIGQUIT)
            file.write_bytes(whole)
            server.start()
            with suppress(ResourceError):
                queries.counts(ledger)
            assert queries.counts(ledger)[InstanceState.RECEIVED] == 5
            assert ledger.claim_instance("me", 60.0) is not None
