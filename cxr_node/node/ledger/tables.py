"""The ledger's tables, as SQLAlchemy Core writes them for SQLite and for PostgreSQL.

Knows no state machine (that is `ledger`) and no connection (that is `database`). A change here needs a
migration in `migrations/versions`; a test compares both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cxr_node.config.schema import MAX_DELAY_S, MAX_STUDY_WAIT_S
from cxr_node.domain import Priority
from cxr_node.node.process.machine import host
from cxr_node.result_kinds import ReportPer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime kept as whole microseconds since 1970: sorts, and is the same in every engine.

    Results repeat the receive time to the microsecond, so nothing may be rounded on the way.
    """

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        """Python to database."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        """Database to Python."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def _here(context: Any) -> str | None:
    """What people call this machine, where there are several."""
    return None if context.dialect.name == "sqlite" else host()


_UID = sa.String(64)
_SHA256 = sa.String(64)
_WORD = sa.String(64)
# SQLite numbers rows by itself only where the key is declared INTEGER.
_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _lease() -> tuple[sa.Column[Any], ...]:
    """The worker that leases a row, until when, and how often it was tried.

    `fence` counts the claims and is never reset: a settle with an older number changes nothing.
    The table's `info` says more: the longest time that `not_before` is ever set ahead (a row that seems to wait for
    longer is due: the clock was put back), and in which order rows are claimed.
    """
    return (
        sa.Column("attempts", sa.Integer, nullable=False, default=0),
        sa.Column("fence", sa.Integer, nullable=False, default=0),
        sa.Column("lease_owner", _WORD),
        sa.Column("lease_until", Instant),
        sa.Column("not_before", Instant, nullable=False),
    )


def _priority() -> sa.Column[Any]:
    return sa.Column("priority", sa.Integer, nullable=False, server_default=str(int(Priority.MEDIUM)))


def _listed(name: str, *columns: str) -> sa.Index:
    """Of a column that is empty until an instance is judged, and costs nothing while it is received."""
    judged = sa.text(f"{name} IS NOT NULL")
    return sa.Index(None, *(columns or (name, "id")), sqlite_where=judged, postgresql_where=judged)


IS_OPEN = sa.text("state IN ('READY', 'WAIT')")
"""Deliveries that are not settled, in the very words of an index: a query that repeats them may use it."""
IS_ENDED = sa.text("state IN ('DEAD', 'SET_ASIDE')")
"""Deliveries that no destination accepted, in the same way."""
IS_SHADOW = sa.text("state = 'SHADOW'")
"""Deliveries that are kept and not sent, in the same way."""

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("content_sha256", _SHA256, nullable=False),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("patient_key", _SHA256, nullable=False),
    sa.Column("accession_key", _SHA256),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("peer_host", sa.String(64), nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("reason", _WORD),
    sa.Column("sentence", sa.Text),
    sa.Column("verdict", _WORD),
    sa.Column("abstain_reason", _WORD),
    sa.Column("probability", sa.Double),
    sa.Column("profile", sa.Text),
    *_lease(),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("purged_at", Instant),
    sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),
    sa.Column("repeated_at", Instant),
    _priority(),
    # it was in the hands of a worker that died: the next one judges it alone
    sa.Column("alone", sa.Integer, nullable=False, server_default="0"),
    sa.Column("station_name", sa.String(16)),
    # an operator accepted that its patient or its study is another one than before
    sa.Column("admitted_at", Instant),
    # under which rules and weights it was rejected
    sa.Column("rules_sha256", _SHA256),
    # when every destination had accepted its results for the first time
    sa.Column("delivered_at", Instant),
    # among whom it is counted: `subgroups.Subgroup`
    sa.Column("view", _WORD),
    sa.Column("age_band", _WORD),
    sa.UniqueConstraint("sop_instance_uid", "content_sha256"),
    sa.Index(None, "state", "id"),
    sa.Index(None, "state", "priority", "alone", "attempts", "id"),
    sa.Index(None, "study_instance_uid"),
    sa.Index(None, "series_instance_uid"),
    sa.Index(None, "accession_key"),
    # for `list` and `counts`: newest first is the order of the ids
    sa.Index(None, "received_at", "id"),
    sa.Index(None, "calling_ae_title", "id"),
    sa.Index(None, "station_name", "id"),
    *(_listed(name) for name in ("verdict", "reason", "abstain_reason")),
    # of one sender; empty until an image is judged, too
    *(_listed("reason", "calling_ae_title", name, "id") for name in ("state", "reason")),
    _listed("abstain_reason", "calling_ae_title", "verdict", "id"),
    sqlite_autoincrement=True,  # ids are never reused: a lower id was received earlier
    info={"max_delay_s": 600.0, "order": ("priority", "alone", "attempts", "id")},
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("kind", _WORD, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("series_instance_uid", _UID),
    sa.Column("content_sha256", _SHA256, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # for destinations that want a report of each image, or of each study
    sa.Column("per", _WORD, nullable=False, server_default=ReportPer.IMAGE.value),
    sqlite_autoincrement=True,
)

# A radiograph that arrives again in another transfer syntax is another instance with the same results.
instance_artifacts = sa.Table(
    "instance_artifacts",
    metadata,
    sa.Column("instance_id", _KEY, sa.ForeignKey("instances.id"), primary_key=True),
    sa.Column("artifact_id", _KEY, sa.ForeignKey("artifacts.id"), primary_key=True, index=True),
    # judged again, the instance got other results since
    sa.Column("outdated_at", Instant),
)

# A result in several SOP Classes is one result: what is due is `artifact_id`, what goes may be an alternative.
alternatives = sa.Table(
    "alternatives",
    metadata,
    sa.Column("artifact_id", _KEY, sa.ForeignKey("artifacts.id"), primary_key=True),
    sa.Column("sop_class_choice", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("alternative_id", _KEY, sa.ForeignKey("artifacts.id"), nullable=False, unique=True),
)

# What was said of an image, as the report of its study needs it: see `judgement_text`. Nothing names the patient.
judgements = sa.Table(
    "judgements",
    metadata,
    sa.Column("instance_id", _KEY, sa.ForeignKey("instances.id"), primary_key=True, autoincrement=False),
    # 1: it was not analysed, and is listed
    sa.Column("listed", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
)

# A study waits until it is ripe (`not_before`), is reported, and waits again if another image comes.
studies = sa.Table(
    "studies",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("state", _WORD, nullable=False),
    # counts its judgements: a report that was made while another image was judged is not the last word
    sa.Column("version", sa.Integer, nullable=False),
    # when the first image came that no report has
    sa.Column("first_at", Instant, nullable=False),
    *_lease(),
    _priority(),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index(None, "state", "priority", "not_before", "id"),
    sqlite_autoincrement=True,
    info={"max_delay_s": MAX_STUDY_WAIT_S, "order": ("priority", "not_before", "id")},
)

study_reports = sa.Table(
    "study_reports",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("study_id", _KEY, sa.ForeignKey("studies.id"), nullable=False, index=True),
    # digest of all that it was made of
    sa.Column("made_of_sha256", _SHA256, nullable=False),
    sa.Column("verdict", _WORD),
    sa.Column("reported_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)

report_artifacts = sa.Table(
    "report_artifacts",
    metadata,
    sa.Column("report_id", _KEY, sa.ForeignKey("study_reports.id"), primary_key=True),
    sa.Column("artifact_id", _KEY, sa.ForeignKey("artifacts.id"), primary_key=True, index=True),
)

# One for each study whose report is to say what is said of earlier radiographs: they are fetched once, or not at all.
# Without a foreign key: it goes when the images of its study have gone.
prior_orders = sa.Table(
    "prior_orders",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("state", _WORD, nullable=False),
    # the study waits no longer
    sa.Column("until", Instant, nullable=False),
    *_lease(),
    _priority(),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index(None, "state", "priority", "id"),
    sqlite_autoincrement=True,
    info={"max_delay_s": MAX_STUDY_WAIT_S, "order": ("priority", "id")},
)

# What came of an order: each radiograph by the digest of its file, or why there is none. Nothing names the patient.
priors = sa.Table(
    "priors",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("order_id", _KEY, sa.ForeignKey("prior_orders.id"), nullable=False, index=True),
    sa.Column("content_sha256", _SHA256, index=True),
    # why it was not fetched, or why no report mentions it
    sa.Column("reason", _WORD),
    sa.Column("sentence", sa.Text),
    # what was said of it: judged once, so that a later report of the study says the same
    sa.Column("judgement", sa.Text),
    sa.Column("settled_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("artifact_id", _KEY, sa.ForeignKey("artifacts.id"), nullable=False),
    sa.Column("destination", _WORD, nullable=False),
    sa.Column("sop_class_choice", sa.Integer, nullable=False, server_default="0"),
    sa.Column("state", _WORD, nullable=False),
    *_lease(),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    sa.Column("first_due_at", Instant, nullable=False),
    sa.Column("delivered_at", Instant),
    # why it was set aside
    sa.Column("reason", _WORD),
    _priority(),
    # from when on it counts how late it is: receipt, or the wish of an operator; null: it is never too late
    sa.Column("late_from", Instant),
    # when a person let it out of the shadow; null: nobody did, or it never was there
    sa.Column("released_at", Instant),
    sa.UniqueConstraint("artifact_id", "destination"),
    sa.Index(None, "destination", "state", "id"),
    sa.Index(None, "destination", "priority", "id", sqlite_where=IS_OPEN, postgresql_where=IS_OPEN),
    sa.Index(None, "state", "destination", "artifact_id", sqlite_where=IS_ENDED, postgresql_where=IS_ENDED),
    sa.Index(None, "first_due_at", "artifact_id", sqlite_where=IS_SHADOW, postgresql_where=IS_SHADOW),
    sqlite_autoincrement=True,
    info={"max_delay_s": MAX_DELAY_S, "order": ("priority", "id")},
)

# One N-ACTION of Storage Commitment: the Transaction UID is known here before the request leaves.
commitments = sa.Table(
    "commitments",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("transaction_uid", _UID, nullable=False, unique=True),
    sa.Column("destination", _WORD, nullable=False),
    sa.Column("asked_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)

# A delivery whose destination is asked to commit itself to the object; the rows of other destinations have none.
promises = sa.Table(
    "promises",
    metadata,
    sa.Column("delivery_id", _KEY, sa.ForeignKey("deliveries.id"), primary_key=True, autoincrement=False),
    sa.Column("destination", _WORD, nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("asks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("not_before", Instant, nullable=False),
    sa.Column("first_due_at", Instant, nullable=False),
    sa.Column("commitment_id", _KEY, sa.ForeignKey("commitments.id"), index=True),
    sa.Column("failure_reason", sa.Integer),
    sa.Column("detail", sa.Text),
    sa.Column("settled_at", Instant),
    sa.Index(None, "destination", "state", "not_before"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("instance_id", _KEY, sa.ForeignKey("instances.id"), nullable=False, index=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("what", _WORD, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    # where it happened; null where the ledger is one machine's
    sa.Column("machine", _WORD, default=_here),
    sqlite_autoincrement=True,
)

# How each destination fares, as the process that delivers sees it: for all others to look at.
destination_health = sa.Table(
    "destination_health",
    metadata,
    sa.Column("destination", _WORD, primary_key=True),
    sa.Column("down_since", Instant),
    sa.Column("next_try_at", Instant),
    sa.Column("last_error", sa.Text),
    sa.Column("last_success_at", Instant),
    # counts the wishes of operators that it be tried at once
    sa.Column("nudges", sa.Integer, nullable=False, server_default="0"),
)

# What is for these destinations waits.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("destination", _WORD, primary_key=True),
    sa.Column("since", Instant, nullable=False),
    sa.Column("by", _WORD, nullable=False),
    sa.Column("reason", _WORD),
)

# What is wrong with the node, from its begin until people were told that it is over.
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("rule", _WORD, nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("began_at", Instant, nullable=False),
    sa.Column("announced_at", Instant),
    sa.Column("ended_at", Instant),
)

# The machines that share this ledger, as each last told.
machines = sa.Table(
    "machines",
    metadata,
    sa.Column("name", _WORD, primary_key=True),
    sa.Column("host", _WORD, nullable=False),
    sa.Column("version", _WORD, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
    # state of each role, as JSON
    sa.Column("roles", sa.Text, nullable=False),
    # by which rules and weights its worker answers, and until when one that has just started is believed without a sign
    sa.Column("rules_sha256", _SHA256),
    sa.Column("rules_until", Instant),
    # what only the machine itself can see, as JSON: told by each process, and by its process web
    sa.Column("disk", sa.Text),
    sa.Column("watched", sa.Text),
)

# What one machine does for all: who does it now, and when it was last done.
duties = sa.Table(
    "duties",
    metadata,
    sa.Column("name", _WORD, primary_key=True),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("lease_owner", _WORD),
    sa.Column("lease_until", Instant),
    sa.Column("done_at", Instant),
)

# Steps of the database's clock by which open deliveries were dated: each once, whoever notices.
clock_steps = sa.Table(
    "clock_steps",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("step_s", sa.Double, nullable=False),
    sqlite_autoincrement=True,
)
