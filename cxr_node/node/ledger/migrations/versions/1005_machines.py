"""Several machines: which there are, where something happened, and steps of the clock that they share.

Revision ID: 1005
Revises: 1004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.tables import events, metadata

revision = "1005"
down_revision = "1004"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    metadata.create_all(connection)
    column = events.c.machine
    known = {each["name"] for each in sa.inspect(connection).get_columns(events.name)}
    if column.name not in known:
        op.add_column(events.name, sa.Column(column.name, column.type))
