"""Between who reads a C-STORE off the wire (`intake`) and who keeps its object (`receive`). PS3.7 9.1.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cxr_node.domain import Priority
from cxr_node.errors import CxrNodeError
from cxr_node.node.spool import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """What a C-STORE-RQ says of the object that follows, and who says it."""

    message_id: int
    context_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    peer_host: str
    priority: Priority = Priority.MEDIUM


class RefusedError(CxrNodeError):
    """An object is not taken; the status is the answer, the sentence is for the log."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class Receiver(Protocol):
    """Who takes the objects."""

    @property
    def max_object_bytes(self) -> int:
        """Longest data set that is taken."""
        ...

    def begin(self, request: StoreRequest) -> Part:
        """Open a file for an object.

        Raises
        ------
        RefusedError, ResourceError : it shall not come.
        """
        ...

    def finish(self, request: StoreRequest, part: Part) -> None:
        """Make a complete object safe; when this returns the node answers for it.

        Raises
        ------
        RefusedError, InstanceError, ResourceError : it is not taken.
        """
        ...
