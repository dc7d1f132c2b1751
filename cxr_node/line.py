"""One line of `cxr-node check`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at."""

    ok: bool
    subject: str
    sentence: str
    warning: bool = False
    """Works, and an operator should know all the same."""

    def as_json(self) -> dict[str, object]:
        """One line of `cxr-node check --json`."""
        return {"ok": self.ok, "warning": self.warning, "subject": self.subject, "sentence": self.sentence}
