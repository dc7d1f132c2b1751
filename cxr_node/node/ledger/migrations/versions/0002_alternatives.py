"""Results in several SOP Classes: their alternatives, and which one goes to a destination."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a table and a column; what was due or delivered before has no alternative and goes as it is (rung 0)."""
    op.create_table(
        "alternatives",
        sa.Column("artifact_id", KEY, nullable=False),
        sa.Column("rung", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("alternative_id", KEY, nullable=False),
        sa.ForeignKeyConstraint(["alternative_id"], ["artifacts.id"], name=op.f("fk_alternatives_alternative_id")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_alternatives_artifact_id")),
        sa.PrimaryKeyConstraint("artifact_id", "rung", name=op.f("pk_alternatives")),
        sa.UniqueConstraint("alternative_id", name=op.f("uq_alternatives_alternative_id")),
    )
    op.add_column("deliveries", sa.Column("rung", sa.Integer(), server_default="0", nullable=False))
