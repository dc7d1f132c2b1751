"""What a candidate says of the films that the live profile has answered, and who made which of the two live.

Migration 1007 makes them. Nothing names a patient, and nothing of it is ever sent.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.tables import Instant, instances, metadata

_KEY, _WORD, _SHA256 = (
    instances.c.id.type,
    instances.c.state.type,
    instances.c.content_sha256.type,
)


def _answer(prefix: str = "") -> tuple[sa.Column[Any], ...]:
    """An `outcome.Answer`."""
    return (
        sa.Column(f"{prefix}profile", sa.Text),
        sa.Column(f"{prefix}verdict", _WORD),
        sa.Column(f"{prefix}abstain_reason", _WORD),
        sa.Column(f"{prefix}score", sa.Double),
        sa.Column(f"{prefix}distance", sa.Double),
        # where its heat map is hottest, as shares of the rows and columns of the radiograph
        sa.Column(f"{prefix}peak_row", sa.Double),
        sa.Column(f"{prefix}peak_column", sa.Double),
    )


candidate_answers = sa.Table(
    "candidate_answers",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("instance_id", _KEY, sa.ForeignKey("instances.id"), nullable=False),
    # which candidate: its weights, version and thresholds
    sa.Column("candidate_sha256", _SHA256, nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("lease_owner", _WORD),
    sa.Column("lease_until", Instant),
    sa.Column("not_before", Instant, nullable=False),
    *_answer("live_"),
    *_answer(),
    # why it did not analyse the film, or has no answer
    sa.Column("reason", _WORD),
    sa.Column("settled_at", Instant),
    sa.UniqueConstraint("instance_id", "candidate_sha256"),
    sa.Index(None, "candidate_sha256", "state", "id"),
    sqlite_autoincrement=True,
    info={"max_delay_s": 600.0, "order": ("id",)},
)

# The last one counts, as long as the configuration names the same two.
promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("candidate_sha256", _SHA256, nullable=False),
    # 1: the candidate is live; 0: it was taken back
    sa.Column("promoted", sa.Integer, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("by", _WORD, nullable=False),
    sqlite_autoincrement=True,
)
