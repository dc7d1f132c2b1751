"""What an operator types, pastes from a log line or reads off a table, as a condition on instances.

Every command that takes a KEY (`trace`, `retry`, ...) takes what stands here. Knows no state and no move.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import sqlalchemy as sa

from cxr_node.node.schema import artifacts, instance_artifacts, instances

_DIGEST = re.compile(r"[0-9a-f]{12,64}")  # log lines show the first 12
_NUMBER = re.compile(r"(?:instance=|#)?([0-9]{1,18})")


def matching(key: str, accession_keys: Collection[str] = ()) -> sa.ColumnElement[bool]:
    """Instances that a key names.

    Parameters
    ----------
    key : SOP, series or study UID; a result's SOP Instance UID; the ledger's number, bare or as a log line has it
        (`instance=7`); a digest or at least the first 12 digits of one
    accession_keys : digests of what `key` may be as an Accession Number (`dicom.header` makes them)
    """
    of_result = (
        sa.select(instance_artifacts.c.instance_id)
        .join(artifacts, artifacts.c.id == instance_artifacts.c.artifact_id)
        .where(artifacts.c.sop_instance_uid == key)
    )
    named = [
        instances.c.sop_instance_uid == key,
        instances.c.series_instance_uid == key,
        instances.c.study_instance_uid == key,
        instances.c.accession_key.in_({key, *accession_keys}),
        instances.c.id.in_(of_result),
    ]
    if _DIGEST.fullmatch(key):
        named.append(instances.c.content_sha256.startswith(key, autoescape=True))
    if number := _NUMBER.fullmatch(key):
        named.append(instances.c.id == int(number[1]))
    return sa.or_(*named)
