"""What the processes write to stderr: one line per event, logfmt words or JSON, and never patient data.

Our own lines carry ledger numbers and digests only. Foreign libraries may quote a dataset in a message, so of
theirs only the place in the code is shown. The same holds for exceptions: the text of our own errors is shown
(see `errors`), of others only the class and the frames.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from cxr_node.config.monitoring import LogFormat
from cxr_node.errors import CxrNodeError

log = logging.getLogger(__name__)

_STREAMS = (1, 2)
"""stdout and stderr."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class _Stream:
    number: int
    path: Path
    mode: int


class LogFiles:
    """Files that stdout and stderr were redirected to when the process started."""

    def __init__(self) -> None:
        self._streams = [stream for number in _STREAMS if (stream := _file_behind(number)) is not None]

    def reopen(self) -> bool:
        """Reopen files that were rotated away; returns whether any was."""
        moved = [stream for stream in self._streams if _is_moved(stream)]
        opened: list[Path] = []
        for stream in moved:
            try:
                _reopen(stream)
                opened.append(stream.path)
            except OSError as error:
                log.error("SIGHUP: the log file cannot be reopened, the old one stays in use: %s", error.strerror)
        if opened:
            log.info("SIGHUP: the log file was rotated and is reopened")
        elif not moved:
            log.info("SIGHUP is ignored: no log file was moved away, and the configuration is read at the start only")
        return bool(opened)


def on_hangup(then: Callable[[], None] | None = None) -> Callable[[], None]:
    """Handler of SIGHUP; `then` is called after a file was reopened."""
    files = LogFiles()

    def hang_up() -> None:
        if files.reopen() and then is not None:
            then()

    return hang_up


def _file_behind(number: int) -> _Stream | None:
    """The regular file that a descriptor writes to, if it still bears the name it was opened under."""
    try:
        found, path = os.fstat(number), Path(f"/proc/self/fd/{number}").readlink()
        named = path.lstat()
    except OSError:  # closed, or deleted, or no /proc
        return None
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != (named.st_dev, named.st_ino):
        return None
    return _Stream(number, path, stat.S_IMODE(found.st_mode))


def _is_moved(stream: _Stream) -> bool:
    written = os.fstat(stream.number)
    try:
        named = stream.path.lstat()
    except OSError:
        return True
    return (written.st_dev, written.st_ino) != (named.st_dev, named.st_ino)


def _reopen(stream: _Stream) -> None:
    file = os.open(stream.path, _FLAGS, stream.mode)
    try:
        os.dup2(file, stream.number, inheritable=True)
    finally:
        os.close(file)


_OURS = "cxr_node"
_MAX_FRAMES = 12


def configure(stream: TextIO | None = None, *, form: LogFormat = LogFormat.TEXT, role: str = "") -> None:
    """Send every line of this process to stderr in one form; called once by each role's command."""
    logging.disable(logging.NOTSET)  # as commands for people leave it (`command`)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_OneLine() if form is LogFormat.TEXT else _OneObject(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    faulthandler.enable(all_threads=True)


def describe(error: BaseException) -> str:
    """An exception as one line without patient data: class, our own words if it is ours, frames.

    The chain of causes is followed; messages of foreign exceptions are left out, for they may quote a dataset.
    """
    links: list[str] = []
    link: BaseException | None = error
    while link is not None and len(links) < 4:
        words = f": {' '.join(str(link).split())}" if isinstance(link, CxrNodeError) else ""
        links.append(f"{type(link).__name__}{words} [{_frames(link)}]")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return " <- ".join(links)


def _frames(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return " > ".join(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)


def _place(filename: str) -> str:
    """Last two parts of a path: enough to find the line, and nothing about the machine."""
    return "/".join(filename.rsplit("/", 2)[-2:])


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt) or error is None:
        return
    logging.getLogger(_OURS).critical("uncaught %s", describe(error))


class _OneLine(logging.Formatter):
    """`2026-01-31T12:00:00Z INFO stage event key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_stamp(record, 'seconds')} {record.levelname} {_stage(record)} {_text(record)}"


class _OneObject(logging.Formatter):
    """The same text as a JSON object, with its key=value words as members."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        text, stage = _text(record), _stage(record)
        own = {"time": _stamp(record, "milliseconds"), "level": record.levelname, "stage": stage}
        own |= {"event": _FIELD.split(text, maxsplit=1)[0].strip(), "message": text}
        words = _FIELD.finditer(text) if _is_ours(record) else ()
        fields = {found["key"]: _value(found["key"], found["value"]) for found in words}
        return json.dumps({"role": self._role or stage} | fields | own, ensure_ascii=False)


_FIELD = re.compile(r"""(?:^|(?<=\s))(?P<key>[a-z][a-z0-9_]*)=(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)""")
"""A word of a line: key=value, or key='a value' as %r writes it."""


_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?")
_WORDS = {"None": None, "True": True, "False": False}
_TEXTS = frozenset({"ae", "cause", "destination", "owner", "peer", "role", "segment", "sha256", "transaction"})
"""Names and digests: text, also where it is made of digits alone."""


def _value(key: str, word: str) -> str | float | bool | None:
    """A number as one; text without its quotes, and what is escaped in it as it stands in the line."""
    if key not in _TEXTS:
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word):
            return float(word) if "." in word else int(word)
    return word[1:-1] if len(word) > 1 and word[0] in "'\"" and word[-1] == word[0] else word


def _stamp(record: logging.LogRecord, precision: str) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def _stage(record: logging.LogRecord) -> str:
    """Source of a line: for our own code the stage (receive, work, deliver, ...), not the module."""
    if not _is_ours(record):
        return record.name
    names = record.name.split(".")
    return names[2] if names[1:2] == ["node"] and len(names) > 2 else names[min(1, len(names) - 1)]


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == _OURS or record.name.startswith(f"{_OURS}.")


def _text(record: logging.LogRecord) -> str:
    if _is_ours(record):
        error = record.exc_info[1] if record.exc_info else None
        message = " ".join(record.getMessage().split())
        return f"{message} {describe(error)}" if error is not None else message
    if record.name == "py.warnings":
        match = re.match(r"(?P<file>[^\n]*?):(?P<line>\d+): (?P<category>\w+):", record.getMessage())
        place = f"{match['category']} at {_place(match['file'])}:{match['line']}" if match else "a warning"
        return f"{place} (text withheld)"
    return f"{_place(record.pathname)}:{record.lineno} (text withheld)"
