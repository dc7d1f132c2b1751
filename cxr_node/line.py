"""One line of `cxr-node check`, and whose fault it tells of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is to be mended where a line is not ok."""

    FILE = "file"
    """The configuration, or a file that it names: the node would not start, or could not do its work (78)."""
    WORLD = "world"
    """An archive is down, a port is taken, a disk is full: nothing in the configuration is wrong (1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at."""

    ok: bool
    subject: str
    sentence: str
    warning: bool = False
    """Works, and an operator should know all the same."""
    fault: Fault = Fault.FILE
    """Where it is not ok."""

    def as_json(self) -> dict[str, object]:
        """One line of `cxr-node check --json`."""
        told: dict[str, object] = {"ok": self.ok, "warning": self.warning, "subject": self.subject}
        told["sentence"] = self.sentence
        return told if self.ok else told | {"fault": self.fault.value}
