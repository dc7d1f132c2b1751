"""The first tables: instances, artifacts, deliveries, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORD = sa.String(length=64)


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("sop_class_uid", WORD, nullable=False),
        sa.Column("sop_instance_uid", WORD, nullable=False),
        sa.Column("content_sha256", WORD, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_artifacts_sop_instance_uid")),
        sqlite_autoincrement=True,
    )


def _instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", KEY, nullable=False),
        sa.Column("sop_instance_uid", WORD, nullable=False),
        sa.Column("content_sha256", WORD, nullable=False),
        sa.Column("study_instance_uid", WORD, nullable=False),
        sa.Column("series_instance_uid", WORD, nullable=False),
        sa.Column("sop_class_uid", WORD, nullable=False),
        sa.Column("transfer_syntax_uid", WORD, nullable=False),
        sa.Column("patient_key", WORD, nullable=False),
        sa.Column("accession_key", WORD, nullable=True),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("peer_host", WORD, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", WORD, nullable=True),
        sa.Column("sentence", sa.Text(), nullable=True),
        sa.Column("verdict", WORD, nullable=True),
        sa.Column("doubt", WORD, nullable=True),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_owner", WORD, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("purged_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint(
            "sop_instance_uid", "content_sha256", name=op.f("uq_instances_sop_instance_uid_content_sha256")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_instances_accession_key"), "instances", ["accession_key"], unique=False)
    op.create_index(op.f("ix_instances_series_instance_uid"), "instances", ["series_instance_uid"], unique=False)
    op.create_index(op.f("ix_instances_state_id"), "instances", ["state", "id"], unique=False)
    op.create_index(op.f("ix_instances_study_instance_uid"), "instances", ["study_instance_uid"], unique=False)


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", KEY, nullable=False),
        sa.Column("artifact_id", KEY, nullable=False),
        sa.Column("destination", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_owner", WORD, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("first_due_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_deliveries_artifact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("artifact_id", "destination", name=op.f("uq_deliveries_artifact_id_destination")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_deliveries_destination_state_id"), "deliveries", ["destination", "state", "id"], unique=False
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", KEY, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("what", WORD, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_events_instance_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_instance_id"), "events", ["instance_id"], unique=False)


def _instance_artifacts() -> None:
    op.create_table(
        "instance_artifacts",
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("artifact_id", KEY, nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_instance_artifacts_artifact_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_instance_artifacts_instance_id")),
        sa.PrimaryKeyConstraint("instance_id", "artifact_id", name=op.f("pk_instance_artifacts")),
    )
    op.create_index(op.f("ix_instance_artifacts_artifact_id"), "instance_artifacts", ["artifact_id"], unique=False)


def upgrade() -> None:
    """Make all tables."""
    _artifacts()
    _instances()
    _deliveries()
    _events()
    _instance_artifacts()
