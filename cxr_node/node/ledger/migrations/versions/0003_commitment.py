"""Storage Commitment: what was asked of a destination, and what it promised; how often a source came again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORD = sa.String(length=64)


def upgrade() -> None:
    """Add two tables and two columns; what was delivered before is asked about only by `cxr-node retry`."""
    op.create_table(
        "commitments",
        sa.Column("id", KEY, nullable=False),
        sa.Column("transaction_uid", WORD, nullable=False),
        sa.Column("destination", WORD, nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitments_transaction_uid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "promises",
        sa.Column("delivery_id", KEY, autoincrement=False, nullable=False),
        sa.Column("destination", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("asks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("first_due_at", sa.BigInteger(), nullable=False),
        sa.Column("commitment_id", KEY, nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["commitment_id"], ["commitments.id"], name=op.f("fk_promises_commitment_id")),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_promises_delivery_id")),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_promises")),
    )
    op.create_index(op.f("ix_promises_commitment_id"), "promises", ["commitment_id"], unique=False)
    columns = ["destination", "state", "not_before"]
    op.create_index(op.f("ix_promises_destination_state_not_before"), "promises", columns, unique=False)
    op.add_column("instances", sa.Column("repeats", sa.Integer(), server_default="0", nullable=False))
    op.add_column("instances", sa.Column("repeated_at", sa.BigInteger(), nullable=True))
