"""One object on its way in, whichever wire it comes by: its file is opened, filled and finished, or it is refused once.

C-STORE (`storage_scp`) and STOW-RS (the process `web`) both go through here, so that neither takes what the other one
refuses. A refusal is a status of PS3.4 Table B.2-1 or PS3.7 Annex C. Knows no wire.
"""

from __future__ import annotations

import re

from cxr_node.errors import ContradictionError, CxrNodeError, InstanceError, LedgerLostError, ResourceError
from cxr_node.node.network.rejections import Cause, Refusal
from cxr_node.node.network.statuses import CANNOT_UNDERSTAND, INVALID_INSTANCE, MISMATCH, OUT_OF_RESOURCES, SUCCESS
from cxr_node.node.receive.receiver import Receiver, RefusedError, StoreRequest, TooLargeError
from cxr_node.node.spool.part import Part

_CAUSES = {
    OUT_OF_RESOURCES: Cause.OUT_OF_RESOURCES,
    MISMATCH: Cause.MISMATCH,
    INVALID_INSTANCE: Cause.INVALID_INSTANCE,
}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Reception:
    """One object; one thread at a time.

    Parameters
    ----------
    refusal : why the wire refuses it before a byte is taken
    """

    def __init__(self, receiver: Receiver, request: StoreRequest, refusal: RefusedError | None = None) -> None:
        self.request = request
        self.refusal = refusal or nameless(request)
        self.received_bytes = 0
        self._receiver = receiver
        self._part: Part | None = None
        if self.refusal is None:
            try:
                self._part = receiver.begin(request)
            except CxrNodeError as error:
                self._refuse(error)

    def write(self, content: memoryview | bytes) -> None:
        """Append; after a refusal, only count."""
        self.received_bytes += len(content)
        if self._part is None:
            return
        try:
            if self.received_bytes > self._receiver.max_object_bytes:
                raise TooLargeError(self._receiver.max_object_bytes)
            self._part.write(content)
        except CxrNodeError as error:
            self._refuse(error)

    def finish(self) -> int:
        """Make it durable; the status to answer."""
        part, self._part = self._part, None
        if part is not None:
            try:
                self._receiver.finish(self.request, part)
            except CxrNodeError as error:
                self._refuse(error)
            finally:
                part.discard()
        return SUCCESS if self.refusal is None else self.refusal.status

    def discard(self) -> int | None:
        """Drop an object that is not complete: how many bytes its file had; None where there is none."""
        part, self._part = self._part, None
        if part is None:
            return None
        part.discard()
        return part.size_bytes

    def told(self) -> Refusal | None:
        """The refusal for log and metrics; None where it was taken."""
        if self.refusal is None:
            return None
        status = self.refusal.status
        return Refusal(
            cause=_CAUSES.get(status, Cause.CANNOT_UNDERSTAND),
            host=self.request.peer_host,
            ae_title=self.request.calling_ae_title,
            detail=f"status=0x{status:04X} bytes={self.received_bytes} {self.refusal}",
        )

    def _refuse(self, error: CxrNodeError) -> None:
        """Keep the first cause, and free what the object holds."""
        self.discard()
        match error:
            case RefusedError():
                self.refusal = error
            case ResourceError() | LedgerLostError():
                self.refusal = RefusedError(OUT_OF_RESOURCES, str(error))
            case ContradictionError():
                self.refusal = RefusedError(MISMATCH, str(error))
            case InstanceError():
                self.refusal = RefusedError(CANNOT_UNDERSTAND, str(error))
            case _:
                raise error


def nameless(request: StoreRequest) -> RefusedError | None:
    """Refuse what has no name that a row or an answer could bear."""
    if is_uid(request.sop_instance_uid):
        return None
    return RefusedError(INVALID_INSTANCE, "the SOP Instance UID is not a UID")


def is_uid(value: str) -> bool:
    """PS3.5 9.1, but for leading zeros, which some devices write."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None
