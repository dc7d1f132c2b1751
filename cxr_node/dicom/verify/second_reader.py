"""highdicom reads every SR and segmentation back: a reader that shares no line with our parser.

For `cxr-node verify` alone. highdicom is imported where it reads: it takes seconds, and the node never needs it here.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cxr_node.dicom.part10 import foreign_faults
from cxr_node.dicom.verify import check, claims
from cxr_node.dicom.verify.plain import read, text
from cxr_node.dicom.verify.rules import Flaw, Rule
from cxr_node.errors import InstanceError
from cxr_node.result_kinds import SHAPES, ResultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEASUREMENTS = SHAPES[ResultKind.MEASUREMENTS]
_READ = (_MEASUREMENTS.sop_class_uid, *_MEASUREMENTS.alternatives)


def flaws(name: str, content: bytes) -> Iterator[Flaw]:
    """Yield a flaw where highdicom cannot read a result of ours, or finds other regions in it than we do."""
    try:
        parsed = read(content)
    except InstanceError:
        return  # `check` says so
    if not check.is_ours(parsed):
        return
    document = claims.document(name, check.kind_of(parsed), parsed)
    expected: list[str] = next((claim.value for claim in claims.of(document) if claim.about == "tracking"), [])
    try:
        with foreign_faults():
            found = _tracking_uids(content, text(parsed.dataset, "SOPClassUID"), document.kind)
    except InstanceError:
        yield Flaw(rule=Rule.SECOND_READER, document=name)
        return
    if found != expected:
        yield Flaw(rule=Rule.SECOND_READER, document=name, where="Tracking Unique Identifier")


def _tracking_uids(content: bytes, sop_class_uid: str, kind: ResultKind | None) -> list[str]:
    """Tracking UIDs of the regions, in order; none of a kind that has none."""
    if kind is ResultKind.SEGMENTATION:
        from highdicom import seg

        masks = seg.segread(io.BytesIO(content))
        return [str(masks.get_segment_description(number).tracking_uid) for number in masks.segment_numbers]
    if kind not in claims.DOCUMENTS:
        return []
    from highdicom import sr
    from pydicom import dcmread

    if sop_class_uid not in _READ:  # highdicom has no class for Basic Text SR, but reads its content items
        sr.ContentSequence.from_sequence(dcmread(io.BytesIO(content)).ContentSequence)
        return []
    report = sr.srread(io.BytesIO(content)).content
    if not isinstance(report, sr.MeasurementReport):
        raise TypeError("no measurement report")
    groups = [*report.get_planar_roi_measurement_groups(), *report.get_image_measurement_groups()]
    return [str(group.tracking_uid) for group in groups]
