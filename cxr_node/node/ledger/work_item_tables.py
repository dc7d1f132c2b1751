"""Items of worklists, beside the other tables of the ledger. Migration 1010 makes them."""

from __future__ import annotations

import sqlalchemy as sa

from cxr_node.config.schema import MAX_DELAY_S
from cxr_node.node.ledger.tables import Instant, _lease, _priority, instances, metadata

_KEY, _UID, _WORD = (instances.c[name].type for name in ("id", "study_instance_uid", "state"))

# One item of a worklist, from before it is claimed: a manager may have given it to us although no answer came.
work_items = sa.Table(
    "work_items",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("worklist", _WORD, nullable=False),
    sa.Column("workitem_uid", _UID, nullable=False, index=True),
    # by which it is ours: here before it leaves
    sa.Column("transaction_uid", _UID, nullable=False, unique=True),
    sa.Column("state", _WORD, nullable=False),
    *_lease(),
    _priority(),
    sa.Column("claimed_at", Instant),
    # in percent, as the manager was last told
    sa.Column("progress", sa.Integer, nullable=False, server_default="0"),
    # results that are stored, as JSON: what it is completed with, at every try the same
    sa.Column("outputs", sa.Text),
    # why it was canceled, or is not ours
    sa.Column("reason", _WORD),
    sa.Column("detail", sa.Text),
    sa.Column("updated_at", Instant, nullable=False),
    sa.UniqueConstraint("worklist", "workitem_uid"),
    sa.Index(None, "worklist", "state", "priority", "id"),
    sqlite_autoincrement=True,
    info={"max_delay_s": MAX_DELAY_S, "order": ("priority", "id")},
)

# Radiographs that an item names, whether they came or not.
work_item_images = sa.Table(
    "work_item_images",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("work_item_id", _KEY, sa.ForeignKey("work_items.id"), nullable=False, index=True),
    sa.Column("study_instance_uid", _UID, nullable=False, index=True),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False, index=True),
    sa.Column("retrieve_ae_title", sa.String(16), nullable=False),
    sqlite_autoincrement=True,
)
