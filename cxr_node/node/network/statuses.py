"""What a C-STORE response means for a delivery: one table, first match wins.

Sources: PS3.4 Table B.2-1 (statuses of the Storage Service Class), PS3.7 9.1.1.1.9 and Annex C (general ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from pynetdicom.events import Event

SUCCESS = 0x0000


OUT_OF_RESOURCES = 0xA700


MISMATCH = 0xA900


CANNOT_UNDERSTAND = 0xC000


INVALID_INSTANCE = 0x0117

_IS_RESPONSE = 0x8000


class Response(IntEnum):
    """Command Fields of the responses that are waited for (PS3.7 Table E.1-1)."""

    C_STORE = 0x8001
    C_GET = 0x8010
    C_FIND = 0x8020
    C_ECHO = 0x8030
    N_GET = 0x8110
    N_SET = 0x8120
    N_ACTION = 0x8130


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response as it came; None where it lacks the element."""

    field: int
    message_id: int | None
    """Message ID Being Responded To."""
    status: int | None


def read(event: Event) -> Answer | None:
    """Read a complete message (evt.EVT_DIMSE_RECV); None if it is not a response."""
    command = event.message.command_set
    field = _number(command.get("CommandField")) or 0
    if not field & _IS_RESPONSE:
        return None
    message_id = _number(command.get("MessageIDBeingRespondedTo"))
    return Answer(field=field, message_id=message_id, status=_number(command.get("Status")))


def fault(answer: Answer, expected: Response, message_id: int) -> str:
    """Why it is not an answer to that request; "" if it is."""
    name = expected.name.replace("_", "-")
    if answer.field != expected:
        return f"the peer answered a {name}-RQ with another command: 0x{answer.field:04X}"
    if answer.message_id is None:
        return f"the peer's {name}-RSP has no Message ID Being Responded To (0000,0120)"
    if answer.message_id != message_id:
        return (
            f"the peer's {name}-RSP answered another message:"
            f" Message ID Being Responded To {answer.message_id}, not {message_id}"
        )
    return "" if answer.status is not None else f"the peer's {name}-RSP has no Status (0000,0900)"


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


class Action(Enum):
    """Next state of a delivery after an answer."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    """A repeat of the same bytes gets the same answer."""


@dataclass(frozen=True, slots=True)
class StatusRule:
    """One row: the answers `value` stands for are those that equal it in the bits of `mask`."""

    value: int
    mask: int
    action: Action
    words: str
    clause: str


_EXACT, _CLASS_A, _CLASS_B = 0xFFFF, 0xFF00, 0xF000

TABLE = (
    StatusRule(0x0000, _EXACT, Action.DELIVERED, "success", "PS3.4 B.2.3"),
    StatusRule(0xB000, _EXACT, Action.DELIVERED, "stored, data elements coerced", "PS3.4 B.2.3"),
    StatusRule(0xB006, _EXACT, Action.DELIVERED, "stored, data elements discarded", "PS3.4 B.2.3"),
    StatusRule(0xB007, _EXACT, Action.DELIVERED, "stored, data set does not match its SOP Class", "PS3.4 B.2.3"),
    StatusRule(0xB000, _CLASS_B, Action.DELIVERED, "stored with a warning", "PS3.7 Annex C"),
    StatusRule(0x0001, _EXACT, Action.DELIVERED, "stored with a warning", "PS3.7 Annex C"),
    StatusRule(0x0107, _EXACT, Action.DELIVERED, "stored, attribute list error", "PS3.7 Annex C"),
    StatusRule(0x0116, _EXACT, Action.DELIVERED, "stored, attribute value out of range", "PS3.7 Annex C"),
    # Our UIDs are made from content: a peer that has this UID has these bytes, and only the reply was lost.
    StatusRule(0x0111, _EXACT, Action.DELIVERED, "the destination has it already", "PS3.7 Annex C"),
    StatusRule(0xA700, _CLASS_A, Action.RETRY, "refused: out of resources", "PS3.4 B.2.3"),
    StatusRule(0xA900, _CLASS_A, Action.REFUSED, "data set does not match its SOP Class", "PS3.4 B.2.3"),
    StatusRule(0xC000, _CLASS_B, Action.REFUSED, "cannot understand", "PS3.4 B.2.3"),
    StatusRule(0x0110, _EXACT, Action.RETRY, "processing failure", "PS3.7 Annex C"),
    StatusRule(0x0105, _EXACT, Action.REFUSED, "no such attribute", "PS3.7 Annex C"),
    StatusRule(0x0106, _EXACT, Action.REFUSED, "invalid attribute value", "PS3.7 Annex C"),
    StatusRule(0x0115, _EXACT, Action.REFUSED, "invalid argument value", "PS3.7 Annex C"),
    StatusRule(0x0117, _EXACT, Action.REFUSED, "invalid SOP Instance", "PS3.7 Annex C"),
    StatusRule(0x0118, _EXACT, Action.REFUSED, "no such SOP Class", "PS3.7 Annex C"),
    StatusRule(0x0119, _EXACT, Action.REFUSED, "class and instance conflict", "PS3.7 Annex C"),
    StatusRule(0x0120, _EXACT, Action.REFUSED, "missing attribute", "PS3.7 Annex C"),
    StatusRule(0x0121, _EXACT, Action.REFUSED, "missing attribute value", "PS3.7 Annex C"),
    StatusRule(0x0122, _EXACT, Action.REFUSED, "refused: SOP Class not supported", "PS3.7 Annex C"),
    # People at the destination may grant the right within the delivery's 72 hours.
    StatusRule(0x0124, _EXACT, Action.RETRY, "refused: not authorized", "PS3.7 Annex C"),
    StatusRule(0x0210, _EXACT, Action.RETRY, "duplicate invocation", "PS3.7 Annex C"),
    StatusRule(0x0211, _EXACT, Action.REFUSED, "unrecognized operation", "PS3.7 Annex C"),
    StatusRule(0x0212, _EXACT, Action.REFUSED, "mistyped argument", "PS3.7 Annex C"),
    StatusRule(0x0213, _EXACT, Action.RETRY, "resource limitation", "PS3.7 Annex C"),
)


def judge(value: int) -> StatusRule:
    """Row for an answer. An unknown status (and Pending, which a C-STORE never has) is retried."""
    for row in TABLE:
        if value & row.mask == row.value:
            return row
    return StatusRule(value, _EXACT, Action.RETRY, "no status of the Storage Service", "PS3.4 B.2.3")
