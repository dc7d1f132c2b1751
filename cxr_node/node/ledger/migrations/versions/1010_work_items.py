"""Work items that were pulled from a worklist, and the images that each names.

Revision ID: 1010
Revises: 1006
"""

from __future__ import annotations

from alembic import op

from cxr_node.node.ledger.tables import metadata

revision = "1010"
down_revision = "1009"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    metadata.create_all(op.get_bind())
