"""What an operator types, pastes from a log line or reads off a table, as a condition on instances.

Every command that takes a KEY (`trace`, `list`, `retry`, `resend`, ...) takes these, and nothing else.
Knows no state and no move.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa

from cxr_node.node.ledger.tables import artifacts, commitments, deliveries, instance_artifacts, instances, promises
from cxr_node.node.ledger.work_item_tables import work_item_images, work_items

_DIGEST = re.compile(r"([0-9a-f]{12,64})…?")
"""Log lines show the first 12 digits."""
_NUMBER = re.compile(r"#?([0-9]{1,18})")
Condition = sa.ColumnElement[bool]


def matching(key: str, accession_keys: Collection[str] = ()) -> Condition:
    """Instances that a key names.

    Parameters
    ----------
    key : SOP, series or study UID; a result's SOP Instance UID; the Transaction UID of a Storage Commitment; the
        UID of a work item, or of its transaction; the ledger's number of an instance; a digest of an object or a
        result, or at least its first 12 digits; or what a log line has, one of `FIELDS` with its value
        (`instance=7`, `delivery=12`, `sha256=0123456789ab`)
    accession_keys : digests of what `key` may be as an Accession Number (`dicom.read.keys`)
    """
    name, equals, value = key.strip(" ,;").partition("=")
    readers = [FIELDS[name]] if equals and name in FIELDS else [] if equals else [_of_uid, _of_digest, _of_number]
    by_accession = instances.c.accession_key.in_({key, *accession_keys})
    return sa.or_(by_accession, *(read(value if equals else name) for read in readers))


def _of_uid(uid: str) -> Condition:
    asked = (
        sa.select(deliveries.c.artifact_id)
        .join(promises, promises.c.delivery_id == deliveries.c.id)
        .join(commitments, commitments.c.id == promises.c.commitment_id)
        .where(commitments.c.transaction_uid == uid)
    )
    return sa.or_(
        instances.c.sop_instance_uid == uid,
        instances.c.series_instance_uid == uid,
        instances.c.study_instance_uid == uid,
        _with_results(sa.select(artifacts.c.id).where(artifacts.c.sop_instance_uid == uid)),
        _with_results(asked),
        _of_item(uid),
    )


def _of_digest(text: str) -> Condition:
    digest = _DIGEST.fullmatch(text)
    if digest is None:
        return sa.false()
    first, last = digest[1], digest[1].ljust(64, "f")  # a range, which an index serves
    return sa.or_(
        instances.c.content_sha256.between(first, last),
        _with_results(sa.select(artifacts.c.id).where(artifacts.c.content_sha256.between(first, last))),
    )


def _of_number(text: str) -> Condition:
    number = _NUMBER.fullmatch(text)
    return sa.false() if number is None else instances.c.id == int(number[1])


def _of_delivery(text: str) -> Condition:
    number = _NUMBER.fullmatch(text)
    if number is None:
        return sa.false()
    return _with_results(sa.select(deliveries.c.artifact_id).where(deliveries.c.id == int(number[1])))


def _of_item(uid: str) -> Condition:
    """Images that a work item names."""
    mine = sa.select(work_items.c.id).where(
        sa.or_(work_items.c.workitem_uid == uid, work_items.c.transaction_uid == uid)
    )
    named = sa.select(work_item_images.c.sop_instance_uid).where(work_item_images.c.work_item_id.in_(mine))
    return instances.c.sop_instance_uid.in_(named)


def _with_results(artifact_ids: sa.Select[Any]) -> Condition:
    linked = sa.select(instance_artifacts.c.instance_id).where(instance_artifacts.c.artifact_id.in_(artifact_ids))
    return instances.c.id.in_(linked)


FIELDS: dict[str, Callable[[str], Condition]] = {
    "instance": _of_number,
    "replaced_by": _of_number,
    "delivery": _of_delivery,
    "sha256": _of_digest,
    "transaction": _of_uid,
    "item": _of_item,
}
"""Fields of log lines that name ledger rows; `tests/test_ledger.py` holds that the list is complete."""
