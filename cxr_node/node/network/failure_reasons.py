"""Failure Reasons of a STOW-RS response (PS3.18 Table I.2-2), and which C-STORE status each of them stands for."""

from __future__ import annotations

from cxr_node.node.network.statuses import CANNOT_UNDERSTAND, INVALID_INSTANCE

CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED = 0x0122, 0xC122
"""What a C-STORE is never answered: there, no presentation context is accepted."""
_TRANSLATED = {INVALID_INSTANCE: CANNOT_UNDERSTAND}
"""Statuses that are no reasons."""


def reason(status: int) -> int:
    """The Failure Reason for what a C-STORE would be answered."""
    return _TRANSLATED.get(status, status)
