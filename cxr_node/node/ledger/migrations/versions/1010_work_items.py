"""Work items that were pulled from a worklist, and the images that each names.

Revision ID: 1010
Revises: 1009
"""

from __future__ import annotations

from alembic import op

from cxr_node.node.ledger.work_item_tables import work_item_images, work_items

revision = "1010"
down_revision = "1009"


def upgrade() -> None:
    """Add what an older ledger lacks; in a new one, 1001 made all of it."""
    for table in (work_items, work_item_images):
        table.create(op.get_bind(), checkfirst=True)
