"""What a result says of its own making, and the first element in which two results differ; no value of a patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cxr_node.dicom.part10 import PROCESSING_EQUIPMENT
from cxr_node.dicom.verify.plain import Plain, items, read
from cxr_node.errors import InstanceError

_THRESHOLDS = re.compile(r"[Rr]uled out below [\d.e-]+(?: %)?, reported from [\d.e-]*\d(?: %)?")
_DIGEST = re.compile(r"\+sha256:([0-9a-f]{12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Of one result: who made it, by what, and when the node had its image."""

    sop_instance_uid: str
    kind: tuple[str, str]
    """SOP Class UID and Series Description: another result of the same kind has the same."""
    received_at: datetime | None
    parts: dict[str, str]
    """In words: what its making depends on besides the image."""


def making(content: bytes) -> Making:
    """Read it.

    Raises
    ------
    InstanceError : it is no DICOM file, or none that this node could have made.
    """
    dataset = read(content).dataset
    ours = [each for each in items(dataset, "ContributingEquipmentSequence") if _is_processing(each)]
    if not ours:
        raise InstanceError("no algorithm has contributed to it: it is no result of this node")
    algorithm = ours[0]
    version = str(algorithm.get("SoftwareVersions", ""))
    digest, thresholds = _DIGEST.search(version), _THRESHOLDS.search(" ".join(_texts(dataset)))
    parts = {
        "version of cxr_node": str(dataset.get("SoftwareVersions", "")),
        "weights": digest[1] if digest else version,
        "profile": f"{algorithm.get('ManufacturerModelName', '')} {version.partition('+')[0]}",
        "thresholds": thresholds[0] if thresholds else "",
        "installation": str(algorithm.get("DeviceSerialNumber", "")),
    }
    return Making(
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        kind=(str(dataset.get("SOPClassUID", "")), str(dataset.get("SeriesDescription", ""))),
        received_at=_instant(str(algorithm.get("ContributionDateTime", ""))),
        parts=parts,
    )


def _is_processing(item: Plain) -> bool:
    return any(each.get("CodeValue") == PROCESSING_EQUIPMENT for each in items(item, "PurposeOfReferenceCodeSequence"))


def _instant(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S.%f%z")
    except ValueError:
        return None


def _texts(dataset: Plain) -> Iterator[str]:
    for value in dataset.values():
        if isinstance(value, str):
            yield value
        else:
            for item in value:
                yield from _texts(item)


def first_difference(one: bytes, other: bytes) -> str:
    """Name the first element in which two files differ, by its path; "" where only their pixels or encoding do."""
    first, second = read(one), read(other)
    found = _first({**first.meta, **first.dataset}, {**second.meta, **second.dataset})
    if found is not None:
        return found
    return "PixelData" if first.pixel_bytes != second.pixel_bytes or one != other else ""


def _first(one: Plain, other: Plain) -> str | None:
    for keyword in (*one, *(each for each in other if each not in one)):
        if keyword not in one or keyword not in other:
            return keyword
        if (inner := _within(one[keyword], other[keyword])) is not None:
            return f"{keyword}{inner}"
    return None


def _within(one: Any, other: Any) -> str | None:
    if isinstance(one, str) or isinstance(other, str):
        return None if one == other else ""
    for number, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if (found := _first(mine, theirs)) is not None:
            return f"[{number}].{found}"
    return None if len(one) == len(other) else f"[{min(len(one), len(other))}]"
