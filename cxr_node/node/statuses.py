"""What a C-STORE response means for a delivery: one table, first match wins.

Sources: PS3.4 Table B.2-1 (statuses of the Storage Service Class), PS3.7 9.1.1.1.9 and Annex C (general ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a delivery after an answer."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    """A repeat of the same bytes gets the same answer."""


@dataclass(frozen=True, slots=True)
class Status:
    """One row: the answers `value` stands for are those that equal it in the bits of `mask`."""

    value: int
    mask: int
    fate: Fate
    words: str
    clause: str


_EXACT, _CLASS_A, _CLASS_B = 0xFFFF, 0xFF00, 0xF000

TABLE = (
    Status(0x0000, _EXACT, Fate.DELIVERED, "success", "PS3.4 B.2.3"),
    Status(0xB000, _EXACT, Fate.DELIVERED, "stored, data elements coerced", "PS3.4 B.2.3"),
    Status(0xB006, _EXACT, Fate.DELIVERED, "stored, data elements discarded", "PS3.4 B.2.3"),
    Status(0xB007, _EXACT, Fate.DELIVERED, "stored, data set does not match its SOP Class", "PS3.4 B.2.3"),
    Status(0xB000, _CLASS_B, Fate.DELIVERED, "stored with a warning", "PS3.7 Annex C"),
    Status(0x0001, _EXACT, Fate.DELIVERED, "stored with a warning", "PS3.7 Annex C"),
    Status(0x0107, _EXACT, Fate.DELIVERED, "stored, attribute list error", "PS3.7 Annex C"),
    Status(0x0116, _EXACT, Fate.DELIVERED, "stored, attribute value out of range", "PS3.7 Annex C"),
    # Our UIDs are made from content: who has this SOP Instance UID has these bytes, and lost only the reply.
    Status(0x0111, _EXACT, Fate.DELIVERED, "the destination has it already", "PS3.7 Annex C"),
    Status(0xA700, _CLASS_A, Fate.RETRY, "refused: out of resources", "PS3.4 B.2.3"),
    Status(0xA900, _CLASS_A, Fate.REFUSED, "data set does not match its SOP Class", "PS3.4 B.2.3"),
    Status(0xC000, _CLASS_B, Fate.REFUSED, "cannot understand", "PS3.4 B.2.3"),
    Status(0x0110, _EXACT, Fate.RETRY, "processing failure", "PS3.7 Annex C"),
    Status(0x0105, _EXACT, Fate.REFUSED, "no such attribute", "PS3.7 Annex C"),
    Status(0x0106, _EXACT, Fate.REFUSED, "invalid attribute value", "PS3.7 Annex C"),
    Status(0x0115, _EXACT, Fate.REFUSED, "invalid argument value", "PS3.7 Annex C"),
    Status(0x0117, _EXACT, Fate.REFUSED, "invalid SOP Instance", "PS3.7 Annex C"),
    Status(0x0118, _EXACT, Fate.REFUSED, "no such SOP Class", "PS3.7 Annex C"),
    Status(0x0119, _EXACT, Fate.REFUSED, "class and instance conflict", "PS3.7 Annex C"),
    Status(0x0120, _EXACT, Fate.REFUSED, "missing attribute", "PS3.7 Annex C"),
    Status(0x0121, _EXACT, Fate.REFUSED, "missing attribute value", "PS3.7 Annex C"),
    Status(0x0122, _EXACT, Fate.REFUSED, "refused: SOP Class not supported", "PS3.7 Annex C"),
    # Rights are given by people at the destination: they may come within the delivery's 72 hours.
    Status(0x0124, _EXACT, Fate.RETRY, "refused: not authorized", "PS3.7 Annex C"),
    Status(0x0210, _EXACT, Fate.RETRY, "duplicate invocation", "PS3.7 Annex C"),
    Status(0x0211, _EXACT, Fate.REFUSED, "unrecognized operation", "PS3.7 Annex C"),
    Status(0x0212, _EXACT, Fate.REFUSED, "mistyped argument", "PS3.7 Annex C"),
    Status(0x0213, _EXACT, Fate.RETRY, "resource limitation", "PS3.7 Annex C"),
)


def judge(value: int) -> Status:
    """Row for an answer. What no clause knows (and Pending, which a C-STORE never has) is tried again."""
    for row in TABLE:
        if value & row.mask == row.value:
            return row
    return Status(value, _EXACT, Fate.RETRY, "no status of the Storage Service", "PS3.4 B.2.3")
