"""What is judged, sent and accepted again: admitted identities, the rules of a refusal, series and age of results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add four columns that older code may leave alone."""
    op.add_column("instances", sa.Column("admitted_at", sa.BigInteger(), nullable=True))
    op.add_column("instances", sa.Column("rules_sha256", sa.String(64), nullable=True))
    op.add_column("artifacts", sa.Column("series_instance_uid", sa.String(64), nullable=True))
    op.add_column("instance_artifacts", sa.Column("outdated_at", sa.BigInteger(), nullable=True))
