"""What readers said of studies, beside the other tables of the ledger: a word, never a text, and no number of a report.

A corrected report supersedes the one before, which stays. Migration 1008 makes it.
"""

from __future__ import annotations

import sqlalchemy as sa

from cxr_node.node.ledger.tables import Instant, instances, metadata

_KEY, _UID, _WORD = (instances.c[name].type for name in ("id", "study_instance_uid", "state"))
IS_CURRENT = sa.text("superseded_at IS NULL")
"""In the very words of an index."""

readings = sa.Table(
    "readings",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("source", _WORD, nullable=False),
    # of the page: who said it; else empty
    sa.Column("reader", _WORD, nullable=False, server_default=""),
    sa.Column("said", _WORD, nullable=False),
    # by which rule a text was read
    sa.Column("rule", _WORD, nullable=False),
    # when it was reported, where the report tells
    sa.Column("said_at", Instant),
    sa.Column("read_at", Instant, nullable=False),
    sa.Column("superseded_at", Instant),
    sa.Index(None, "study_instance_uid"),
    sa.Index(
        None,
        "study_instance_uid",
        "source",
        "reader",
        unique=True,
        sqlite_where=IS_CURRENT,
        postgresql_where=IS_CURRENT,
    ),
    sqlite_autoincrement=True,
)
