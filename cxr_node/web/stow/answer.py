"""The answer to STOW-RS: a status, and the Store Instances Response Module as DICOM JSON (PS3.18 10.5.3, I.2).

Nothing is answered of what a part says but its UIDs, and those only where they are UIDs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_node.node.network.failure_reasons import reason
from cxr_node.node.network.statuses import OUT_OF_RESOURCES, SUCCESS
from cxr_node.node.receive.reception import is_uid
from cxr_node.web.stow.parts import Taken

MEDIA_TYPE = "application/dicom+json"
_RETRIEVE_URL: dict[str, Any] = {"00081190": {"vr": "UR"}}
"""Empty: the node serves no WADO-RS."""


def status(taken: Sequence[Taken]) -> int:
    """The status of the response: 200 only where every instance is durable."""
    failed = [each for each in taken if each.status != SUCCESS]
    if not failed:
        return 200
    if len(failed) < len(taken):
        return 202
    if all(each.is_too_large for each in failed):
        return 413
    return 503 if is_for_now(taken) else 409


def is_for_now(taken: Sequence[Taken]) -> bool:
    """Whether some of it may be taken later."""
    return any(each.status == OUT_OF_RESOURCES and not each.is_too_large for each in taken)


def module(taken: Sequence[Taken]) -> dict[str, Any]:
    """The Store Instances Response Module."""
    stored = [_item(each) | _RETRIEVE_URL for each in taken if each.status == SUCCESS]
    failed = [each for each in taken if each.status != SUCCESS]
    named = [_item(each) | _reason(each) for each in failed if is_uid(each.sop_instance_uid)]
    others = [_reason(each) for each in failed if not is_uid(each.sop_instance_uid)]
    sequences = {"00081198": named, "00081199": stored, "0008119A": others}
    return _RETRIEVE_URL | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _item(taken: Taken) -> dict[str, Any]:
    named = {"00081150": taken.sop_class_uid, "00081155": taken.sop_instance_uid}
    return {tag: {"vr": "UI", "Value": [uid]} if is_uid(uid) else {"vr": "UI"} for tag, uid in named.items()}


def _reason(taken: Taken) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [reason(taken.status)]}}
