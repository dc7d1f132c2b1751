"""The tables of 0.1.0, as `tables.py` has them.

Revision ID: 1001
Revises:

The next migration freezes these tables here: what it adds to `tables.py` must not be in them already.
"""

from __future__ import annotations

from alembic import op

from cxr_node.node.ledger.tables import metadata

revision = "1001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    metadata.create_all(op.get_bind())
