"""The tables of a ledger: made whole or not at all, kept by a version that is taken back, refused where too old."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError
from cxr_node.node.ledger.database import HEAD
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.spool.spool import Spool
from tests import postgres
from tests.node import workplace
from tests.node.ledgers import Clock, digest, origin, reference
from tests.node.test_ledger import due, reported

FORKS = multiprocessing.get_context("forkserver")
KILLED_AT = ["sqlalchemy.sql.ddl:SchemaGenerator.visit_table", "alembic.command:upgrade"]


@pytest.mark.parametrize("point", KILLED_AT)
def test_killed_in_the_middle_of_a_migration_the_next_process_goes_on(
    tmp_path: Path, engine: dict[str, Any], point: str
) -> None:
    """SIGKILL right after a step, before the commit (reliability.md T27)."""
    config = workplace.config(tmp_path, **engine)
    process = FORKS.Process(target=_migrate_and_die, args=(config, point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with _past_the_node(config) as connection:
        assert sa.inspect(connection).get_table_names() == [], "half of the tables"
    clock = Clock()
    ledger = Ledger.of_node(config, repair=True)
    assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    ledger.close()
    assert not list(tmp_path.glob("*damaged*"))


def _migrate_and_die(config: Config, point: str) -> None:
    module_name, _, names = point.partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = names.split(".")
    for each in outer:
        owner = getattr(owner, each)
    genuine = getattr(owner, name)

    def dying(*arguments: Any, **keywords: Any) -> None:
        genuine(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)
    Ledger.of_node(config)


def test_a_version_taken_back_works_on_what_the_newer_one_added(tmp_path: Path, engine: dict[str, Any]) -> None:
    """Within a thousand, migrations only add; the next thousand is refused (`test_ledger`)."""
    config, clock = workplace.config(tmp_path, **engine), Clock()
    Ledger.of_node(config).close()
    _at_revision(config, "1999", "ALTER TABLE deliveries ADD COLUMN of_a_later_version TEXT")
    ledger = Ledger.of_node(config)
    assert ledger.add(reference(1), origin(clock), digest(1), 4711)
    ledger.close()
    assert _revision(config) == "1999"


def test_what_was_due_before_an_update_is_never_too_late(tmp_path: Path, engine: dict[str, Any]) -> None:
    config, clock = workplace.config(tmp_path, **engine), Clock()
    ledger = Ledger.of_node(config)
    reported(ledger, clock)
    ledger.close()
    _at_revision(config, "1001", "ALTER TABLE deliveries DROP COLUMN late_from")
    ledger = Ledger.of_node(config)
    assert due(ledger).late_from is None
    reported(ledger, clock, 2)
    ledger.close()
    assert _revision(config) == HEAD


def test_a_ledger_before_0_1_0_is_refused_and_rebuild_begins_a_new_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.store.prepare()
    Ledger.open(tmp_path).close()
    _at_revision(workplace.config(tmp_path), "0006")
    for repair in (False, True):
        with pytest.raises(ConfigError, match=r"\(0006\) are of a version before 0\.1\.0; `cxr-node rebuild`"):
            Ledger.open(tmp_path, repair=repair)
    settings = tmp_path / "node.yaml"
    settings.write_text(f"spool: {{path: {tmp_path}}}\n")
    told = CliRunner().invoke(app, ["rebuild", "--config", str(settings)])
    assert (told.exit_code, told.stdout) == (0, "0 objects in the spool, 0 of them received again\n"), told.output
    assert _revision(workplace.config(tmp_path)) == HEAD
    assert len(list(tmp_path.glob(f"{FILE_NAME}.unreleased-*Z"))) == 1


@contextmanager
def _past_the_node(config: Config) -> Iterator[sa.Connection]:
    if config.ledger.url is not None:
        with postgres.past_the_node(config.ledger.url) as connection:
            yield connection
        return
    engine = sa.create_engine(f"sqlite:///{config.spool.path / FILE_NAME}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection


def _at_revision(config: Config, revision: str, *statements: str) -> None:
    with _past_the_node(config) as connection:
        for statement in (*statements, f"UPDATE alembic_version SET version_num = '{revision}'"):
            connection.execute(sa.text(statement))


def _revision(config: Config) -> str:
    with _past_the_node(config) as connection:
        return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))
