"""The one object that a C-GET was to bring, from the wire to a file; what else a source sends is bounded.

pynetdicom collects a data set in memory, however long it is. PS3.7 9.1.3 (C-GET), PS3.8 Annex E (PDVs).
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA

from cxr_node.errors import CxrNodeError, ResourceError
from cxr_node.node.network.file_meta import file_meta
from cxr_node.node.network.statuses import CANNOT_UNDERSTAND, SUCCESS
from cxr_node.node.priors.query import SOP_CLASSES, Ref
from cxr_node.node.spool.part import Part

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of all answers of one association, objects left out: those to 500 matches have a tenth of it."""
_IS_COMMAND = 1  # PS3.8 E.2, message control header


class BreachError(CxrNodeError):
    """The source sent what was not asked for: the association is ended."""


class Inbox:
    """Takes one object at a time; written by the thread that reads the connection."""

    def __init__(self, max_object_bytes: int) -> None:
        self._max_object_bytes = max_object_bytes
        self._lock = threading.Lock()
        self._ref: Ref | None = None
        self._part: Part | None = None
        self._message: Any = None
        self._answer_bytes = 0
        self._has_all = False
        self.fault = ""
        """Why the association was ended from this side."""

    def expect(self, ref: Ref, part: Part) -> None:
        """Take this object next, and no other."""
        self._ref, self._part, self._message, self._has_all = ref, part, None, False

    def taken(self) -> Ref | None:
        """Stop waiting; what came, None where the object is not there as a whole."""
        with self._lock:  # the file is the caller's again, who may close it
            ref, self._ref, self._part = self._ref, None, None
            return ref if self._has_all else None

    def count(self, nr_bytes: int) -> None:
        """Bound what comes besides the object."""
        self._answer_bytes += nr_bytes
        if self._answer_bytes > MAX_ANSWER_BYTES:
            raise self._breach("the source's answers have no end")

    def write(self, message: Any, context: Any, content: bytes) -> None:
        """Append to the file.

        Raises
        ------
        BreachError : it is not the object that is expected, or too long.
        ResourceError : the disk is full, gone or broken.
        """
        with self._lock:
            if message is not self._message:
                self._begin(message.command_set, context)
                self._message = message
            part = self._part
            if part is None or part.size_bytes + len(content) > self._max_object_bytes:
                raise self._breach("the source sent an object longer than listen.max_object_mib")
            self._append(part, content)

    def stored(self, event: Event) -> int:
        """Answer the C-STORE, which pynetdicom calls when its message is complete."""
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        with self._lock:
            has_begun = self._ref is not None and self._message is not None
            self._has_all = has_begun and self._ref is not None and uid == self._ref.sop_instance_uid
            return SUCCESS if self._has_all else CANNOT_UNDERSTAND

    def _begin(self, command: Any, context: Any) -> None:
        ref, part = self._ref, self._part
        if ref is None or part is None or self._message is not None:
            raise self._breach("the source sent an object that was not asked for")
        sop_class_uid = str(command.get("AffectedSOPClassUID") or "")
        if str(command.get("AffectedSOPInstanceUID") or "") != ref.sop_instance_uid:
            raise self._breach("the source sent another object than the one asked for")
        if sop_class_uid not in SOP_CLASSES or context is None or context.abstract_syntax != sop_class_uid:
            raise self._breach("the source sent an object of another SOP Class than agreed")
        self._ref = replace(ref, sop_class_uid=sop_class_uid)
        self._append(part, file_meta(sop_class_uid, ref.sop_instance_uid, str(context.transfer_syntax[0])))

    def _append(self, part: Part, content: bytes) -> None:
        try:
            part.write(content)
        except ResourceError as error:
            self.fault = str(error)
            raise

    def _breach(self, words: str) -> BreachError:
        self.fault = self.fault or words
        return BreachError(self.fault)


class RetrieveProvider(DIMSEServiceProvider):
    """pynetdicom's, which hands the data sets of C-STOREs on as they come. What it raises ends the association."""

    def __init__(self, assoc: Association, inbox: Inbox) -> None:
        super().__init__(assoc)
        self._inbox = inbox

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the PDVs one by one: pynetdicom drops those behind the end of a message."""
        for context_id, pdv in primitive.presentation_data_value_list:
            control, content = pdv[:1], pdv[1:]
            if isinstance(self.message, C_STORE_RQ) and control and not control[0] & _IS_COMMAND:
                self._inbox.write(self.message, self.assoc._accepted_cx.get(context_id), content)
                content = b""
            self._inbox.count(len(content) + 1)
            one, kept = P_DATA(), [context_id, control + content]  # typed a tuple, checked as a list
            one.presentation_data_value_list = [kept]  # type: ignore[list-item]
            super().receive_primitive(one)
