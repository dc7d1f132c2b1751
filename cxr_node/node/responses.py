"""Whether what a peer answered is the answer to what it was asked (PS3.7 6.3.1, E.1). Knows no schedule.

pynetdicom hands any response to whoever waits for one: here it is noted as it came, and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pynetdicom.events import Event

_IS_RESPONSE = 0x8000


class Response(IntEnum):
    """Command Fields of the responses that are waited for (PS3.7 Table E.1-1)."""

    C_STORE = 0x8001
    C_ECHO = 0x8030
    N_ACTION = 0x8130


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response as it came; None where it lacks the element."""

    field: int
    message_id: int | None
    """Message ID Being Responded To."""
    status: int | None


def read(event: Event) -> Answer | None:
    """Read a message that has come whole (evt.EVT_DIMSE_RECV); None where it is no response."""
    command = event.message.command_set
    field = _number(command.get("CommandField")) or 0
    if not field & _IS_RESPONSE:
        return None
    message_id = _number(command.get("MessageIDBeingRespondedTo"))
    return Answer(field=field, message_id=message_id, status=_number(command.get("Status")))


def fault(answer: Answer, expected: Response, message_id: int) -> str:
    """Say why it is no answer to that request; "" where it is one."""
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
