"""A row that only the first of several writers makes, on both engines."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import insert_once
from cxr_node.node.ledger.tables import duties, studies
from tests.node import workplace

STUDY = {"study_instance_uid": "1.2.3", "state": "WAITING", "fence": 0, "attempts": 0}


def test_it_says_whether_it_was_the_first(tmp_path: Path, engine: dict[str, Any]) -> None:
    """Of a table with numbers of its own PostgreSQL tells no count of rows."""
    with closing(Ledger.of_node(workplace.config(tmp_path / "spool", **engine))) as ledger:
        needed = {
            column.name: ledger.now() if isinstance(column.type, type(studies.c.updated_at.type)) else 0
            for column in studies.c
            if not column.nullable and column.server_default is None and not column.primary_key
        }
        with ledger.database.writing() as connection:
            told = [insert_once(connection, studies, needed | STUDY) for _ in range(2)]
            told += [insert_once(connection, duties, {"name": "sweep", "fence": 0}) for _ in range(2)]
            assert connection.scalar(sa.select(sa.func.count()).select_from(studies)) == 1
    assert told == [True, False, True, False]
