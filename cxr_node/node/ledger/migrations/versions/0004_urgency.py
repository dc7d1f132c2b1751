"""How urgent an instance is, and what is tried alone; indexes in the order in which work is claimed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

OPEN = sa.text("state IN ('READY', 'WAIT')")
IN_ORDER = ["state", "priority", "alone", "attempts", "id"]


def upgrade() -> None:
    """Add three columns and two indexes; what waits already is of medium priority, as is what older code receives."""
    op.add_column("instances", sa.Column("priority", sa.Integer(), server_default="2", nullable=False))
    op.add_column("instances", sa.Column("alone", sa.Integer(), server_default="0", nullable=False))
    op.add_column("deliveries", sa.Column("priority", sa.Integer(), server_default="2", nullable=False))
    op.create_index(op.f("ix_instances_state_priority_alone_attempts_id"), "instances", IN_ORDER, unique=False)
    op.create_index(
        op.f("ix_deliveries_destination_priority_id"),
        "deliveries",
        ["destination", "priority", "id"],
        unique=False,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
