"""What the network measured of each judged image, and the films that later ones are compared with.

Revision ID: 1009
Revises: 1008
"""

from __future__ import annotations

from alembic import op

from cxr_node.node.ledger.measurement_tables import film_references, measurements

revision = "1009"
down_revision = "1008"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    for table in (measurements, film_references):
        table.create(op.get_bind(), checkfirst=True)
