"""What an operator types, pastes from a log line or reads off a table, as a condition on instances.

Every command that takes a KEY (`trace`, `retry`, ...) takes what stands here. Knows no state and no move.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.tables import artifacts, commitments, deliveries, instance_artifacts, instances, promises

_DIGEST = re.compile(r"(?:sha256=)?([0-9a-f]{12,64})…?")  # log lines show the first 12
_NUMBER = re.compile(r"(?:instance=|#)?([0-9]{1,18})")
_DELIVERY = re.compile(r"delivery=([0-9]{1,18})")


def matching(key: str, accession_keys: Collection[str] = ()) -> sa.ColumnElement[bool]:
    """Instances that a key names.

    Parameters
    ----------
    key : SOP, series or study UID; a result's SOP Instance UID; the ledger's number, bare or as a log line has it
        (`instance=7`, `delivery=12`); a digest of an object or a result, or at least the first 12 digits of one;
        a Transaction UID of Storage Commitment
    accession_keys : digests of what `key` may be as an Accession Number (`dicom.header` makes them)
    """
    asked = (
        sa.select(deliveries.c.artifact_id)
        .join(promises, promises.c.delivery_id == deliveries.c.id)
        .join(commitments, commitments.c.id == promises.c.commitment_id)
        .where(commitments.c.transaction_uid == key)
    )
    named = [
        instances.c.sop_instance_uid == key,
        instances.c.series_instance_uid == key,
        instances.c.study_instance_uid == key,
        instances.c.accession_key.in_({key, *accession_keys}),
        _with_result(artifacts.c.sop_instance_uid == key),
        instances.c.id.in_(_users(asked)),
    ]
    if digest := _DIGEST.fullmatch(key):
        first, last = digest[1], digest[1].ljust(64, "f")  # a range, which an index serves
        named.append(instances.c.content_sha256.between(first, last))
        named.append(_with_result(artifacts.c.content_sha256.between(first, last)))
    if delivery := _DELIVERY.fullmatch(key):
        sent = sa.select(deliveries.c.artifact_id).where(deliveries.c.id == int(delivery[1]))
        named.append(instances.c.id.in_(_users(sent)))
    if number := _NUMBER.fullmatch(key):
        named.append(instances.c.id == int(number[1]))
    return sa.or_(*named)


def _with_result(which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return instances.c.id.in_(_users(sa.select(artifacts.c.id).where(which)))


def _users(artifact_ids: sa.Select[Any]) -> sa.Select[Any]:
    """Instances of these results."""
    return sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(artifact_ids))
