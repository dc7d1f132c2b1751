"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Only add here; what a running older version still reads is taken away one version later."""
    ${upgrades if upgrades else "pass"}
