"""What readers said of studies, and among whom each image is counted.

Revision ID: 1008
Revises: 1007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cxr_node.node.ledger.reading_tables import readings
from cxr_node.node.ledger.tables import instances

revision = "1008"
down_revision = "1007"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    connection = op.get_bind()
    readings.create(connection, checkfirst=True)
    known = {each["name"] for each in sa.inspect(connection).get_columns(instances.name)}
    for name in ("view", "age_band"):
        if name not in known:
            op.add_column(instances.name, sa.Column(name, instances.c[name].type))
