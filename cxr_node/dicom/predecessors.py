"""Which earlier documents a report replaces: those made of the same SOP Instance before its header was corrected.

Named in Predecessor Documents Sequence, which of our results only the structured reports have; a document of one SOP
Class names those of the same class, for an archive holds a result in one of its classes. PS3.3 C.17.2, table 10-4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydicom import Dataset

from cxr_node.dicom.content import reference
from cxr_node.domain import Precedent, ResultKind, ResultRef

_DOCUMENTS = (ResultKind.REPORT, ResultKind.MEASUREMENTS)


def of(
    precedent: Precedent, kind: ResultKind, sop_class_uid: str, series_uid: Callable[[ResultKind], str]
) -> tuple[ResultRef, ...]:
    """Documents of this kind and class in the answers that came before the first one with this very content.

    A series is of one answer, so it tells whether two versions got the same: one that came in another transfer syntax
    must not replace itself, nor name what it did not name the first time.
    """
    if kind not in _DOCUMENTS:
        return ()
    found: dict[str, ResultRef] = {}
    for version in precedent.earlier_results:
        if any(each.series_instance_uid == series_uid(each.kind) for each in version):
            break
        alike = [each for each in version if each.kind is kind and each.sop_class_uid == sop_class_uid]
        found |= {each.sop_instance_uid: each for each in alike}
    return tuple(found.values())


def items(study_instance_uid: str, documents: Iterable[ResultRef]) -> list[Dataset]:
    """Hierarchical reference to documents of one study (table 10-4)."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    for document in documents:
        series = Dataset()
        series.SeriesInstanceUID = document.series_instance_uid
        series.ReferencedSOPSequence = [reference(document.sop_class_uid, document.sop_instance_uid)]
        study.ReferencedSeriesSequence.append(series)
    return [study]
