"""Studies: what is said of their images until they are ripe, and their reports.

Revision ID: 1002
Revises: 1001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.tables import artifacts, metadata

revision = "1002"
down_revision = "1001"


def upgrade() -> None:
    """Add what a ledger of 1001 lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    metadata.create_all(connection)
    if artifacts.c.per.name not in {column["name"] for column in sa.inspect(connection).get_columns(artifacts.name)}:
        op.add_column(artifacts.name, artifacts.c.per.copy())
