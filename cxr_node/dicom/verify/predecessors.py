"""What a report says that it replaces: documents of its own study and class, and those that came before it alone.

Clauses: PS3.3 C.17.2 Predecessor Documents Sequence, table 10-4.
"""

from __future__ import annotations

from cxr_node.dicom.results.context import Context
from cxr_node.dicom.verify.plain import Plain, items, read, text
from cxr_node.dicom.verify.rules import Rule
from cxr_node.dicom.verify.tree import Report
from cxr_node.domain import Artifact

_SEQUENCE = "PredecessorDocumentsSequence"


def check(dataset: Plain, report: Report) -> None:
    """Check what holds of every document, whoever made it."""
    own = text(dataset, "StudyInstanceUID"), text(dataset, "SOPClassUID"), text(dataset, "SOPInstanceUID")
    for study, _, sop_class, uid in _named(dataset):
        if (study, sop_class) != own[:2] or uid == own[2]:
            report(Rule.PREDECESSOR, _SEQUENCE)


def check_made(artifact: Artifact, first: Plain, context: Context, report: Report) -> None:
    """Check each class of a result, of which `first` is read already, against the documents it was made to replace."""
    if _named(first) != _wanted(artifact, context):
        report(Rule.PREDECESSOR, _SEQUENCE)
    if not _named(first):
        return  # the others differ in nothing else: `verify` compares them
    for rung in artifact.alternatives:
        if _named(read(rung.content).dataset) != _wanted(rung, context):
            report(Rule.PREDECESSOR, _SEQUENCE)


def _wanted(rung: Artifact, context: Context) -> list[tuple[str, str, str, str]]:
    return [
        (context.source.ref.study_instance_uid, each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid)
        for each in context.replaced(rung.kind, rung.sop_class_uid)
    ]


def _named(dataset: Plain) -> list[tuple[str, str, str, str]]:
    """Study, series, SOP Class and SOP Instance UID of each document."""
    return [
        (
            text(study, "StudyInstanceUID"),
            text(series, "SeriesInstanceUID"),
            text(document, "ReferencedSOPClassUID"),
            text(document, "ReferencedSOPInstanceUID"),
        )
        for study in items(dataset, _SEQUENCE)
        for series in items(study, "ReferencedSeriesSequence")
        for document in items(series, "ReferencedSOPSequence")
    ]
