"""Duties that one machine does for all, and what each machine tells of itself.

Revision ID: 1006
Revises: 1005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.tables import machines, metadata

revision = "1006"
down_revision = "1005"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    metadata.create_all(connection)
    known = {each["name"] for each in sa.inspect(connection).get_columns(machines.name)}
    for column in machines.columns:
        if column.name not in known:
            op.add_column(machines.name, sa.Column(column.name, column.type))
