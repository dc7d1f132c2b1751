"""What is measured of films, beside the other tables of the ledger. Migration 1009 makes them."""

from __future__ import annotations

import sqlalchemy as sa

from cxr_node.node.ledger.tables import Instant, instances, metadata

_KEY, _WORD, _SHA256 = (instances.c[name].type for name in ("id", "state", "content_sha256"))

# What the network measured of an image at its last judgement, and by which weights, rules and thresholds: for the
# comparison of films over time and for the log. No pixels, and nothing that names the patient.
measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("instance_id", _KEY, sa.ForeignKey("instances.id"), primary_key=True, autoincrement=False),
    sa.Column("logit", sa.Double, nullable=False),
    sa.Column("distance", sa.Double),
    # 64 float16, little-endian: see `model.pooled`
    sa.Column("features", sa.LargeBinary(128), nullable=False),
    sa.Column("weights_sha256", _SHA256, nullable=False),
    sa.Column("config_sha256", _SHA256, nullable=False),
    # the operating point, as JSON
    sa.Column("operating_point", sa.Text, nullable=False),
    sa.Index(None, "weights_sha256", "instance_id"),
)

# The site's own first films under some weights, against which later ones are compared: fixed once, and kept when the
# rows of the films have gone.
film_references = sa.Table(
    "film_references",
    metadata,
    sa.Column("name", _WORD, primary_key=True),
    sa.Column("weights_sha256", _SHA256, nullable=False, unique=True),
    sa.Column("fixed_at", Instant, nullable=False),
    sa.Column("last_instance_id", _KEY, nullable=False),
    # as JSON: what was counted, by sender
    sa.Column("counts", sa.Text, nullable=False),
    # rows of logit, distance (float64) and features, one after the other: see `measurements`
    sa.Column("films", sa.LargeBinary, nullable=False),
)
