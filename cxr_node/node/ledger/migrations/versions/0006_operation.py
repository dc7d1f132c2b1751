"""Station Name of what is received, how destinations fare, and indexes by which instances are listed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

LISTED = ("received_at", "calling_ae_title", "station_name")
ONCE_JUDGED = ("verdict", "reason", "doubt")


def upgrade() -> None:
    """Add a column, a table and six indexes; of what was received before, the Station Name is not known."""
    op.add_column("instances", sa.Column("station_name", sa.String(16)))
    op.create_table(
        "destination_health",
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("down_since", sa.BigInteger()),
        sa.Column("next_try_at", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.Column("last_success_at", sa.BigInteger()),
        sa.Column("nudges", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_destination_health")),
    )
    for name in LISTED:
        op.create_index(op.f(f"ix_instances_{name}_id"), "instances", [name, "id"], unique=False)
    for name in ONCE_JUDGED:
        told = sa.text(f"{name} IS NOT NULL")
        columns = [name, "id"]
        op.create_index(op.f(f"ix_instances_{name}_id"), "instances", columns, sqlite_where=told, postgresql_where=told)
