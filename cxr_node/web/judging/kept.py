"""Results of Try for the minutes in which their person looks at them: in files without a name, never in memory.

Nobody else finds them, and nothing of them outlives the process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cxr_node.web.judging.client import Judged
from cxr_node.web.problem import Problem

KEEP_S = 600.0
MAX_KEPT_BYTES = 512 * 1024 * 1024
"""Of all people together; the oldest go first. One radiograph's results have 6 to 15 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one file."""

    judged: Judged | None
    problem: Problem | None = None
    """Why there is no answer."""

    @property
    def size_bytes(self) -> int:
        """Of its parts."""
        return sum(length for _, length in self.judged.parts.values()) if self.judged else 0

    def close(self) -> None:
        """Let its file go."""
        if self.judged is not None:
            self.judged.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    owner: str
    results: Sequence[Result]
    ends: asyncio.TimerHandle


class Kept:
    """The results of each request, by a random token; for the event loop's thread."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def add(self, owner: str, results: Sequence[Result]) -> str:
        """Keep them for a while; `owner` is a secret of the session that may see them."""
        token = secrets.token_urlsafe(16)
        ends = asyncio.get_running_loop().call_later(KEEP_S, self.forget, token)
        self._entries[token] = _Entry(owner=owner, results=results, ends=ends)
        while self._size_bytes() > MAX_KEPT_BYTES and len(self._entries) > 1:
            self.forget(next(iter(self._entries)))
        return token

    def find(self, owner: str, token: str) -> Sequence[Result]:
        """Show them to their owner.

        Raises
        ------
        Problem : 404, they are another's, or gone.
        """
        entry = self._entries.get(token)
        if entry is None or not secrets.compare_digest(entry.owner, owner):
            raise Problem(404, "gone", f"results are kept for {KEEP_S / 60:g} minutes; try the file again")
        return entry.results

    def forget(self, token: str) -> None:
        """Let them go."""
        entry = self._entries.pop(token, None)
        if entry is not None:
            entry.ends.cancel()
            for result in entry.results:
                result.close()

    def close(self) -> None:
        """Let all of them go."""
        for token in list(self._entries):
            self.forget(token)

    def _size_bytes(self) -> int:
        return sum(result.size_bytes for entry in self._entries.values() for result in entry.results)
