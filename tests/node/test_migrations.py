"""The tables of a ledger: made whole or not at all, kept by a version that is taken back, refused where too old."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.errors import ConfigError
from cxr_node.node.ledger.database import HEAD
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.spool.spool import Spool
from tests.node.ledgers import Clock, digest, origin, reference
from tests.node.test_ledger import due, reported

FORKS = multiprocessing.get_context("forkserver")
KILLED_AT = ["sqlalchemy.sql.ddl:SchemaGenerator.visit_table", "alembic.command:upgrade"]


@pytest.mark.parametrize("place", KILLED_AT)
def test_killed_in_the_middle_of_a_migration_the_next_process_goes_on(tmp_path: Path, place: str) -> None:
    """SIGKILL right after a step, before the commit (reliability.md T27)."""
    process = FORKS.Process(target=_migrate_and_die, args=(tmp_path, place))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [], "half of the tables"
    file.close()
    clock = Clock()
    ledger = Ledger.open(tmp_path, now=clock, repair=True)
    assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    ledger.close()
    assert not list(tmp_path.glob("*damaged*"))


def _migrate_and_die(folder: Path, place: str) -> None:
    module_name, _, names = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = names.split(".")
    for each in outer:
        owner = getattr(owner, each)
    genuine = getattr(owner, name)

    def dying(*arguments: Any, **keywords: Any) -> None:
        genuine(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)
    Ledger.open(folder)


def test_a_version_that_was_taken_back_works_on_what_the_newer_one_added(tmp_path: Path) -> None:
    """Within a thousand, migrations only add; the next thousand is refused (`test_ledger`)."""
    clock = Clock()
    Ledger.open(tmp_path, now=clock).close()
    _at_revision(tmp_path, "1999", "ALTER TABLE deliveries ADD COLUMN of_a_later_version TEXT")
    ledger = Ledger.open(tmp_path, now=clock)
    assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    ledger.close()
    assert _revision(tmp_path) == "1999"


def test_what_was_due_before_an_update_is_never_too_late(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, now=clock)
    reported(ledger, clock)
    ledger.close()
    _at_revision(tmp_path, "1001", "ALTER TABLE deliveries DROP COLUMN late_from")
    ledger = Ledger.open(tmp_path, now=clock)
    assert due(ledger).late_from is None
    reported(ledger, clock, 2)
    ledger.close()
    assert _revision(tmp_path) == HEAD


def test_a_ledger_before_0_1_0_is_refused_and_rebuild_begins_a_new_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store.prepare()
    Ledger.open(tmp_path).close()
    _at_revision(tmp_path, "0006")
    for repair in (False, True):
        with pytest.raises(ConfigError, match=r"\(0006\) are of a version before 0\.1\.0; `cxr-node rebuild`"):
            Ledger.open(tmp_path, repair=repair)
    settings = tmp_path / "node.yaml"
    settings.write_text(f"spool: {{path: {tmp_path}}}\n")
    told = CliRunner().invoke(app, ["rebuild", "--config", str(settings)])
    assert (told.exit_code, told.stdout) == (0, "0 objects in the spool, 0 of them received again\n"), told.output
    assert _revision(tmp_path) == HEAD
    assert len(list(tmp_path.glob(f"{FILE_NAME}.unreleased-*Z"))) == 1


def _at_revision(folder: Path, revision: str, *statements: str) -> None:
    with sqlite3.connect(folder / FILE_NAME) as file:
        for statement in statements:
            file.execute(statement)
        file.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    file.close()


def _revision(folder: Path) -> str:
    with sqlite3.connect(folder / FILE_NAME) as file:
        (revision,) = file.execute("SELECT version_num FROM alembic_version").fetchone()
    file.close()
    return str(revision)
