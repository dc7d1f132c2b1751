"""The log of a period as JSON lines that hang together: who sent what, what was answered by what, where it went.

Each line has the SHA-256 of the line before it, so that no line can be changed, left out or added without the last
digest being another one. Whoever keeps that digest elsewhere can tell; the chain alone proves no author.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxr_node import __version__
from cxr_node.config.schema import Config
from cxr_node.errors import DataError
from cxr_node.node.audit import deeds, recorder
from cxr_node.node.ledger import holds, log_rows
from cxr_node.node.ledger.ledger import Ledger

_BEGIN = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A whole log."""

    lines: int
    sha256: str
    """Of its last line: it stands for all of them."""


def entries(ledger: Ledger, config: Config, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """All that the log of a period says; what retention has deleted is not in it."""
    yield {
        "line": "log",
        "from": since.isoformat(),
        "to": until.isoformat(),
        "made_at": ledger.now().isoformat(),
        "cxr_node": __version__,
        "installation": config.results.installation_id,
        "config_sha256": config.answer_sha256,
        "audit_keep_days": config.audit.keep_days,
        "history_days": config.spool.history_days,
    }
    yield from ({"line": "image", **each} for each in log_rows.images(ledger, since, until))
    yield from ({"line": "event", **each} for each in log_rows.later_events(ledger, since, until))
    for name, hold in holds.look(ledger).items():
        if hold.since < until:
            yield {"line": "hold", "destination": name, "since": hold.since.isoformat(), "by": hold.by}
    if config.audit.enabled:
        yield from ({"line": "deed", **each} for each in deeds.deeds(recorder.trail_folder(config), since, until))


def write(file: Path, told: Iterable[dict[str, Any]]) -> Chain:
    """Write a log, and close its chain.

    Raises
    ------
    DataError : the file exists, or cannot be written.
    """
    previous, lines = _BEGIN, 0
    try:
        with file.open("xb") as out:
            for entry in _ended(told):
                line = json.dumps({**entry, "previous": previous}, ensure_ascii=False, sort_keys=True).encode()
                out.write(line + b"\n")
                previous, lines = hashlib.sha256(line).hexdigest(), lines + 1
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    return Chain(lines=lines, sha256=previous)


def _ended(told: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    lines = 1
    for entry in told:
        yield entry
        lines += 1
    yield {"line": "end", "lines": lines}


def verify(file: Path) -> Chain:
    """Go through the chain.

    Raises
    ------
    DataError : the file cannot be read, a line does not follow the one before, or its end is missing.
    """
    previous, lines, last = _BEGIN, 0, {}
    try:
        with file.open("rb") as found:
            for lines, line in enumerate(found, 1):
                last = json.loads(line)
                if last["previous"] != previous:
                    raise DataError(f"{file}: line {lines} does not follow the line before it")
                previous = hashlib.sha256(line.removesuffix(b"\n")).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: line {lines} is none of such a log") from error
    if last.get("line") != "end" or last.get("lines") != lines:
        raise DataError(f"{file}: it does not end as it was written")
    return Chain(lines=lines, sha256=previous)
