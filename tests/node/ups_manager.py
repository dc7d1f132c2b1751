"""A manager of work items that knows the rules (PS3.4 Table CC.1.1-2), remembers each move, and fails on demand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from cxr_node.config.network import Address
from tests.node import peers

PULL = "1.2.840.10008.5.1.4.34.6.3"
PUSH = "1.2.840.10008.5.1.4.34.6.1"
CODE = "CXR-AI^99RIS^Chest AI"
STATION = "AI-1^99RIS^Chest AI station"
ROOT = "1.2.826.0.1.3680043.8.498.74"


def dataset(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(text: str) -> Dataset:
    value, scheme, meaning = text.split("^")
    return dataset(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def item_uid(number: int) -> str:
    return f"{ROOT}.{number}"


def workitem(number: int, *images: tuple[str, str, str], retrieve: str = "", **more: Any) -> Dataset:
    """Item of that number about these images: study, series and SOP Instance UID of each."""
    groups = []
    for study, series, uid in images:
        ref = dataset(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", ReferencedSOPInstanceUID=uid)
        group = dataset(
            TypeOfInstances="DICOM", StudyInstanceUID=study, SeriesInstanceUID=series, ReferencedSOPSequence=[ref]
        )
        if retrieve:
            group.DICOMRetrievalSequence = [dataset(RetrieveAETitle=retrieve)]
        groups.append(group)
    values: dict[str, Any] = {
        "SOPClassUID": PUSH,
        "SOPInstanceUID": item_uid(number),
        "PatientName": "CANARY^UPS",
        "PatientID": "CANARY-UPS",
        "PatientBirthDate": "19500102",
        "ScheduledWorkitemCodeSequence": [code(CODE)],
        "ScheduledStationNameCodeSequence": [code(STATION)],
        "InputInformationSequence": groups,
        "InputReadinessState": "READY",
        "ProcedureStepState": "SCHEDULED",
        "ScheduledProcedureStepPriority": "MEDIUM",
    }
    return dataset(**values | more)


@dataclass
class Item:
    """One item, by whom it is held, and what became of it."""

    attributes: Dataset
    transaction: str = ""
    moves: list[str] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        return str(self.attributes.ProcedureStepState)

    @property
    def performed(self) -> Any:
        return self.attributes.UnifiedProcedureStepPerformedProcedureSequence[0]

    @property
    def outputs(self) -> list[str]:
        """SOP Instance UIDs that it refers to."""
        groups = self.performed.OutputInformationSequence
        return [str(ref.ReferencedSOPInstanceUID) for group in groups for ref in group.ReferencedSOPSequence]

    @property
    def reason(self) -> str:
        """Code Value of why it was canceled."""
        (told,) = self.attributes.ProcedureStepProgressInformationSequence
        return str(told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue)


@dataclass
class UpsManager:
    """All items, whichever protocol asks."""

    kind: str = "ups"
    """Of the worklist that a test asks it by."""
    items: dict[str, Item] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Each request in turn: find, get, claim, progress, result, reason, complete, cancel."""
    unheard: list[str] = field(default_factory=list)
    """Requests that are lost on their way, each once."""
    unanswered: list[str] = field(default_factory=list)
    """Requests that are done, and whose answer is lost, each once."""
    refusals: dict[str, list[int]] = field(default_factory=dict)
    """Statuses that are answered instead, each once."""
    shelf: Path | None = None
    """A folder with a file for each result that the archive has; None: it has none."""
    premature: list[str] = field(default_factory=list)
    """Items that were completed before an archive had all that they refer to."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def archived(self) -> set[str]:
        """SOP Instance UIDs of results that the archive has."""
        return set() if self.shelf is None else {each.name for each in self.shelf.iterdir()}

    def add(self, made: Dataset) -> Item:
        item = self.items[str(made.SOPInstanceUID)] = Item(made)
        return item

    def change(self, uid: str, state: str, transaction: str) -> int:
        """Change UPS State (PS3.4 CC.2.1)."""
        if (item := self.items.get(uid)) is None:
            return 0xC307
        if not transaction:
            return 0xC301
        if state == "IN PROGRESS":
            return self._claim(item, transaction)
        return self._end(item, state, transaction) if state in ("COMPLETED", "CANCELED") else 0xC303

    def _claim(self, item: Item, transaction: str) -> int:
        if item.state != "SCHEDULED":
            return 0xC302 if item.state == "IN PROGRESS" else 0xC300
        item.transaction = transaction
        self._move(item, "IN PROGRESS")
        return 0x0000

    def _end(self, item: Item, state: str, transaction: str) -> int:
        if item.state == "SCHEDULED":
            return 0xC310
        if item.transaction != transaction:
            return 0xC301
        if item.state == state:
            return 0xB306 if state == "COMPLETED" else 0xB304
        if item.state != "IN PROGRESS":
            return 0xC300
        if not self._is_ready(item, state):
            return 0xC304
        self._move(item, state)
        return 0x0000

    def _move(self, item: Item, state: str) -> None:
        item.attributes.ProcedureStepState = state
        item.moves.append(state)
        if state == "COMPLETED" and not (item.outputs and set(item.outputs) <= self.archived):
            self.premature.append(str(item.attributes.SOPInstanceUID))

    def _is_ready(self, item: Item, state: str) -> bool:
        """Final state requirements of Table CC.2.5-3, as far as they are about this."""
        if state == "CANCELED":
            (told,) = item.attributes.get("ProcedureStepProgressInformationSequence", [Dataset()])
            return "ProcedureStepDiscontinuationReasonCodeSequence" in told
        steps = item.attributes.get("UnifiedProcedureStepPerformedProcedureSequence", ())
        wanted = ("PerformedStationNameCodeSequence", "PerformedWorkitemCodeSequence", "OutputInformationSequence")
        wanted += ("PerformedProcedureStepStartDateTime", "PerformedProcedureStepEndDateTime")
        return len(steps) == 1 and all(steps[0].get(keyword) for keyword in wanted)

    def update(self, uid: str, told: Dataset) -> int:
        """Set attributes (PS3.4 CC.2.6)."""
        if (item := self.items.get(uid)) is None:
            return 0xC307
        transaction = str(told.get("TransactionUID", ""))
        if item.state in ("COMPLETED", "CANCELED"):
            return 0xC300
        if item.state == "SCHEDULED":
            return 0xC310
        if item.transaction != transaction:
            return 0xC301
        if any("Patient" in element.keyword for element in told):
            return 0x0106
        for element in told:
            if element.keyword != "TransactionUID":
                item.attributes[element.tag] = element
        for progress in told.get("ProcedureStepProgressInformationSequence", ()):
            percent = progress.get("ProcedureStepProgress")
            item.progress.append("canceled" if percent is None else f"{float(percent):g}")
        return 0x0000

    def found(self, keys: Dataset) -> list[Dataset]:
        """What matches: state, and the value and scheme of code sequences (PS3.4 CC.2.8)."""
        matches = []
        for item in self.items.values():
            made = item.attributes
            wanted = [each for each in keys if each.VR == "SQ" and len(each.value)]
            if made.ProcedureStepState == keys.ProcedureStepState and all(self._has(made, each) for each in wanted):
                answer = Dataset()
                for element in keys:
                    if element.tag in made:
                        answer[element.tag] = made[element.tag]
                matches.append(answer)
        return matches

    def _has(self, made: Dataset, wanted: Any) -> bool:
        key = wanted.value[0]
        return any(
            (each.CodeValue, each.CodingSchemeDesignator) == (key.CodeValue, key.CodingSchemeDesignator)
            for each in made.get(wanted.tag).value
        )

    def about_to(self, what: str) -> int | None:
        """Note a request; a status to answer instead of doing it, None to do it, -1: it never came."""
        self.asked.append(what)
        if what in self.unheard:
            self.unheard.remove(what)
            return -1
        statuses = self.refusals.get(what, [])
        return statuses.pop(0) if statuses else None

    def loses_answer(self, what: str) -> bool:
        if what not in self.unanswered:
            return False
        self.unanswered.remove(what)
        return True


def named(state: str) -> str:
    return {"IN PROGRESS": "claim", "COMPLETED": "complete"}.get(state, "cancel")


def kind_of_update(told: Dataset) -> str:
    if "UnifiedProcedureStepPerformedProcedureSequence" in told:
        return "result"
    (progress,) = told.ProcedureStepProgressInformationSequence
    return "progress" if "ProcedureStepProgress" in progress else "reason"


class DimseManager:
    """Answers by DIMSE."""

    def __init__(self, manager: UpsManager) -> None:
        self.manager = manager

    def find(self, event: Event) -> Iterator[Any]:
        with self.manager.lock:
            status = self.manager.about_to("find")
            if status == -1:
                event.assoc.abort()
                return
            if status is not None:
                yield status, None
                return
            found = self.manager.found(event.identifier)
        for each in found:
            yield 0xFF00, each

    def get(self, event: Event) -> tuple[int, Dataset | None]:
        with self.manager.lock:
            uid = str(event.request.RequestedSOPInstanceUID)
            item = self.manager.items.get(uid)

            def answer() -> tuple[int, Dataset | None]:
                if item is None:
                    return 0xC307, None
                made = Dataset()
                for tag in event.attribute_identifiers:
                    if tag in item.attributes:
                        made[tag] = item.attributes[tag]
                return 0x0000, made

            return self._do(event, "get", answer)

    def action(self, event: Event) -> tuple[int, Dataset | None]:
        with self.manager.lock:
            uid, told = str(event.request.RequestedSOPInstanceUID), event.action_information
            state, transaction = str(told.ProcedureStepState), str(told.get("TransactionUID", ""))
            assert event.action_type == 1
            return self._do(event, named(state), lambda: (self.manager.change(uid, state, transaction), None))

    def set(self, event: Event) -> tuple[int, Dataset | None]:
        with self.manager.lock:
            uid, told = str(event.request.RequestedSOPInstanceUID), event.modification_list
            return self._do(event, kind_of_update(told), lambda: (self.manager.update(uid, told), None))

    def _do(self, event: Event, what: str, answer: Any) -> tuple[int, Dataset | None]:
        status = self.manager.about_to(what)
        if status == -1:
            event.assoc.abort()
            return 0x0110, None
        if status is not None:
            return status, None
        made: tuple[int, Dataset | None] = answer()
        if self.manager.loses_answer(what):
            event.assoc.abort()
        return made


@contextlib.contextmanager
def listening(manager: UpsManager, *classes: str) -> Iterator[Address]:
    entity = AE("RIS")
    for uid in classes or (PULL,):
        entity.add_supported_context(uid)
    dimse = DimseManager(manager)
    handlers = [(evt.EVT_C_FIND, dimse.find), (evt.EVT_N_GET, dimse.get)]
    handlers += [(evt.EVT_N_ACTION, dimse.action), (evt.EVT_N_SET, dimse.set)]
    with peers.serving(entity, *handlers) as address:
        yield address
