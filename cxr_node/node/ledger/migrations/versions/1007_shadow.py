"""Shadow: when a delivery was let out of it, and where those are that are in it; answers of a candidate.

Revision ID: 1007
Revises: 1006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.candidate_tables import candidate_answers, promotions
from cxr_node.node.ledger.tables import Instant, deliveries, metadata

revision = "1007"
down_revision = "1006"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    metadata.create_all(connection)
    for table in (candidate_answers, promotions):
        table.create(connection, checkfirst=True)
    there = sa.inspect(connection)
    column = deliveries.c.released_at
    if column.name not in {each["name"] for each in there.get_columns(deliveries.name)}:
        op.add_column(deliveries.name, sa.Column(column.name, Instant))
    known = {each["name"] for each in there.get_indexes(deliveries.name)}
    for index in deliveries.indexes:
        if index.name not in known:
            index.create(connection)
