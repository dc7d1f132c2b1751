"""From when on it counts how late a delivery is; those that are there already are never too late.

Revision ID: 1003
Revises: 1001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.tables import Instant, deliveries

revision = "1003"
down_revision = "1001"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made it."""
    column = deliveries.c.late_from
    known = {each["name"] for each in sa.inspect(op.get_bind()).get_columns(deliveries.name)}
    if column.name not in known:
        op.add_column(deliveries.name, sa.Column(column.name, Instant))
