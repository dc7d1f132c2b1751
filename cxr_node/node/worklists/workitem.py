"""Work items: what is asked for, which of them are for this node, and what their manager is told of each.

Knows no protocol: `ups_scu` carries it over DIMSE. PS3.4 Annex CC, attributes of Table CC.2.5-3. Nothing that is
written here names a patient, and of what is read nothing is kept that does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from cxr_node.config.worklists import Code, Worklist
from cxr_node.domain import Priority
from cxr_node.node.ledger.work_items import CancelReason, InputImage, Output
from cxr_node.node.worklists.attributes import DataSet, first, items, text

RADIOGRAPHS = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1")
"""Computed Radiography, and Digital X-Ray for presentation: of other inputs nothing is judged, and none is fetched."""
MAX_IMAGES = 20
"""Radiographs of one item."""
OWN_SCHEME = "99CXRNODE"
REASONS = {
    CancelReason.IMAGES_MISSING: ("110523", "Object Set incomplete", "Its images did not all come in time."),
    CancelReason.NOT_ANALYSED: ("110522", "Object Types not supported", "All of its images were rejected."),
    CancelReason.FAULT: ("110501", "Equipment failure", "No report of its images could be made."),
    CancelReason.NOT_STORED: ("110501", "Equipment failure", "No archive took the report."),
    CancelReason.SET_ASIDE: ("110513", "Discontinued for unspecified reason", "An operator set its images aside."),
    CancelReason.TIME_IS_UP: ("110527", "Resource inadequate", "Its report was not stored in time."),
    CancelReason.REFUSED: ("110501", "Equipment failure", "Its completion was refused."),
}
"""Code Value and Code Meaning of CID 9300 (PS3.16), scheme DCM, and a sentence for people."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST = 64
_PRIORITIES = {"HIGH": Priority.HIGH, "LOW": Priority.LOW}
_NOT_READY = ("UNREADY", "INCOMPLETE")
_DATE_TIME = "%Y%m%d%H%M%S"


class StepState(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class Said(StrEnum):
    """What a manager made of a request."""

    DONE = "done"
    REFUSED = "refused"
    NOT_OURS = "not-ours"
    """Another performer has it: our Transaction UID is not the one."""
    GONE = "gone"
    """It knows no such item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request that changes an item."""

    said: Said
    words: str
    """For the log: a status, without anything of the answer's own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where results can be retrieved."""

    ae_title: str = ""
    url: str = ""
    """Of a DICOMweb server; one of both is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """One item, as its manager describes it."""

    uid: str
    state: str
    priority: Priority
    images: tuple[InputImage, ...]
    readiness: str
    workitem_codes: tuple[tuple[str, str], ...]
    """Value and scheme of each."""
    station_codes: tuple[tuple[str, str], ...]

    def why_not(self, worklist: Worklist) -> str:
        """Why it is left to others; "" where it is for this node. Says nothing of the item's own."""
        if self.state != StepState.SCHEDULED:
            return "it is not SCHEDULED"
        if _pair(worklist.workitem_code) not in self.workitem_codes:
            return "it has another Scheduled Workitem Code"
        if worklist.station_name is not None and _pair(worklist.station_name) not in self.station_codes:
            return "it is scheduled for another station"
        if self.readiness in _NOT_READY:
            return f"its inputs are {self.readiness}"
        if not self.images:
            return "it names no CR or DX image"
        return f"it names more than {MAX_IMAGES} radiographs" if len(self.images) > MAX_IMAGES else ""

    def is_worth_reading(self, worklist: Worklist) -> bool:
        """Whether it may be for this node, as far as an answer to a search says."""
        is_other = self.workitem_codes and _pair(worklist.workitem_code) not in self.workitem_codes
        return self.state == StepState.SCHEDULED and self.readiness not in _NOT_READY and not is_other


class Manager(Protocol):
    """Who has the items, by whichever protocol. For one thread.

    Raises
    ------
    DeliveryError : from every method: there was no answer that decides anything. What was asked may have been done.
    """

    def search(self, worklist: Worklist) -> list[Workitem]:
        """Items that are SCHEDULED for it, as far as the manager matches; `why_not` looks again."""
        ...

    def read(self, uid: str) -> Workitem | None:
        """One item; None where there is no such item."""
        ...

    def change(self, uid: str, state: StepState, transaction_uid: str) -> Reply:
        """Change its state; done, too, where it is in that final state already."""
        ...

    def update(self, uid: str, transaction_uid: str, told: DataSet) -> Reply:
        """Set attributes of an item that is in progress."""
        ...

    def probe(self) -> str:
        """Say in one sentence that it can be asked (`cxr-node check`)."""
        ...

    def close(self) -> None:
        """Disconnect; the next request connects again."""
        ...


def sought(worklist: Worklist) -> dict[str, Any]:
    """Matching and return keys of a search (PS3.4 CC.2.8)."""
    wanted: dict[str, Any] = {
        "SOPClassUID": "",
        "SOPInstanceUID": "",
        "ProcedureStepState": StepState.SCHEDULED.value,
        "ScheduledProcedureStepPriority": "",
        "ScheduledWorkitemCodeSequence": [_matching(worklist.workitem_code)],
        "ScheduledStationNameCodeSequence": [],
        "InputReadinessState": "",
    }
    if worklist.station_name is not None:
        wanted["ScheduledStationNameCodeSequence"] = [_matching(worklist.station_name)]
    return wanted


READ = (
    "SOPInstanceUID",
    "ScheduledWorkitemCodeSequence",
    "InputInformationSequence",
    "ScheduledStationNameCodeSequence",
    "InputReadinessState",
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
)
"""What is read of one item; no attribute that names a patient."""


def is_uid(value: str) -> bool:
    """Whether it may be asked for: no list, no wildcard."""
    return len(value) <= _LONGEST and _UID.fullmatch(value) is not None


def read(found: Any, uid: str = "") -> Workitem | None:
    """Read what a manager says of an item; None where it has no UID. `uid` : the one that was asked for."""
    uid = uid or text(found, "SOPInstanceUID")
    if not is_uid(uid):
        return None
    return Workitem(
        uid=uid,
        state=text(found, "ProcedureStepState").upper(),
        priority=_PRIORITIES.get(text(found, "ScheduledProcedureStepPriority").upper(), Priority.MEDIUM),
        images=tuple(_images(found)),
        readiness=text(found, "InputReadinessState").upper(),
        workitem_codes=_codes(found, "ScheduledWorkitemCodeSequence"),
        station_codes=_codes(found, "ScheduledStationNameCodeSequence"),
    )


def _images(found: Any) -> Iterator[InputImage]:
    """Radiographs of the Input Information Sequence, each once (PS3.3 Table 10-3b)."""
    seen: set[str] = set()
    for group in items(found, "InputInformationSequence"):
        study, series = text(group, "StudyInstanceUID"), text(group, "SeriesInstanceUID")
        retrieve = text(first(group, "DICOMRetrievalSequence"), "RetrieveAETitle")
        for ref in items(group, "ReferencedSOPSequence"):
            sop_class, uid = text(ref, "ReferencedSOPClassUID"), text(ref, "ReferencedSOPInstanceUID")
            if sop_class in RADIOGRAPHS and is_uid(uid) and is_uid(study) and uid not in seen:
                seen.add(uid)
                yield InputImage(
                    study_instance_uid=study,
                    series_instance_uid=series if is_uid(series) else "",
                    sop_class_uid=sop_class,
                    sop_instance_uid=uid,
                    retrieve_ae_title=retrieve if len(retrieve) <= 16 and retrieve.isascii() else "",
                )


def _codes(found: Any, keyword: str) -> tuple[tuple[str, str], ...]:
    return tuple((text(each, "CodeValue"), text(each, "CodingSchemeDesignator")) for each in items(found, keyword))


def _pair(code: Code) -> tuple[str, str]:
    return code.value, code.scheme


def _matching(code: Code) -> dict[str, Any]:
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme}


def coded(code: Code) -> DataSet:
    """An item of a code sequence."""
    return _matching(code) | {"CodeMeaning": code.meaning}


def claimed(transaction_uid: str, state: StepState) -> dict[str, Any]:
    """Action Information of Change UPS State (PS3.4 Table CC.2.1-1)."""
    return {"ProcedureStepState": state.value, "TransactionUID": transaction_uid}


def progress(percent: int, words: str) -> dict[str, Any]:
    """How far it is, for people."""
    told = {"ProcedureStepProgress": str(percent), "ProcedureStepProgressDescription": words}
    return {"ProcedureStepProgressInformationSequence": [told]}


def canceled(reason: CancelReason, at: datetime) -> dict[str, Any]:
    """Why and when it was given up."""
    value, meaning, sentence = REASONS[reason]
    told = {
        "ProcedureStepCancellationDateTime": date_time(at),
        "ReasonForCancellation": sentence,
        "ProcedureStepDiscontinuationReasonCodeSequence": [coded(Code(value=value, scheme="DCM", meaning=meaning))],
    }
    return {"ProcedureStepProgressInformationSequence": [told]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What was done for an item."""

    station: Code
    workitem: Code
    description: str
    begun_at: datetime
    ended_at: datetime
    place: Place
    outputs: Sequence[Output]

    def told(self) -> dict[str, Any]:
        """What must be there before it may be COMPLETED (PS3.4 Table CC.2.5-3, final state)."""
        step = {
            "PerformedStationNameCodeSequence": [coded(self.station)],
            "PerformedWorkitemCodeSequence": [coded(self.workitem)],
            "PerformedProcedureStepDescription": self.description,
            "PerformedProcedureStepStartDateTime": date_time(self.begun_at),
            "PerformedProcedureStepEndDateTime": date_time(self.ended_at),
            "OutputInformationSequence": list(_outputs(self.outputs, self.place)),
        }
        return {"UnifiedProcedureStepPerformedProcedureSequence": [step]}


def _outputs(outputs: Iterable[Output], place: Place) -> Iterator[DataSet]:
    """One item for each series (PS3.3 Table 10-3b)."""
    groups: dict[tuple[str, str], list[DataSet]] = {}
    for each in outputs:
        ref = {"ReferencedSOPClassUID": each.sop_class_uid, "ReferencedSOPInstanceUID": each.sop_instance_uid}
        groups.setdefault((each.study_instance_uid, each.series_instance_uid), []).append(ref)
    for (study, series), refs in groups.items():
        told: dict[str, Any] = {
            "TypeOfInstances": "DICOM",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "ReferencedSOPSequence": refs,
        }
        if place.ae_title:
            told["DICOMRetrievalSequence"] = [{"RetrieveAETitle": place.ae_title}]
        if place.url:
            told["WADORSRetrievalSequence"] = [{"RetrieveURL": f"{place.url}/studies/{study}/series/{series}"}]
        yield told


def date_time(at: datetime) -> str:
    """A DT in UTC, with its offset, to the second."""
    return f"{at.astimezone(UTC):{_DATE_TIME}}+0000"
