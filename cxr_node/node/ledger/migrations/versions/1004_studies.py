"""Studies: what is said of their images until they are ripe, and their reports.

Revision ID: 1004
Revises: 1003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.tables import artifacts, metadata

revision = "1004"
down_revision = "1003"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    metadata.create_all(connection)
    per = artifacts.c.per
    known = {each["name"] for each in sa.inspect(connection).get_columns(artifacts.name)}
    if per.name not in known:
        op.add_column(artifacts.name, sa.Column(per.name, per.type, nullable=False, server_default=per.server_default))
