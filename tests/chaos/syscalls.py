"""What strace saw of a receiver, read as stores: in which order each became durable before it was acknowledged.

Knows the spool's layout (`node/spool/spool.py`) and the wire of a C-STORE-RSP (PS3.7 9.3.1.2), not the node's code.
A call counts as done when it has returned, and as begun when it was entered: strace tells both where threads overlap.
"""

from __future__ import annotations

import codecs
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

TRACED = "write,pwrite64,fsync,fdatasync,rename,mkdir,sendto"
_SHOWN = "4200"
"""Bytes of a call's text: a page of the ledger, in which rows are looked for."""
_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_WHOLE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>.+)")
_BEGINS = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")
_ENDS = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>.+)")
_OPEN_FILE = re.compile(r"\d+<(?P<path>[^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_C_STORE_RSP = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"
_SUCCESS = b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00"
_SOP_INSTANCE_UID = b"\x00\x00\x00\x10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call of one thread; `begun` and `ended` are line numbers of the trace."""

    thread: int
    name: str
    arguments: str
    begun: int
    ended: int

    @property
    def path(self) -> str:
        """Of the file that the first argument stands for; "" where it is none."""
        found = _OPEN_FILE.match(self.arguments)
        return found["path"] if found else ""

    @property
    def texts(self) -> list[str]:
        """Arguments in quotes, as bytes in latin-1."""
        return [codecs.decode(text, "unicode_escape") for text in _TEXT.findall(self.arguments)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The calls that made one object safe, in the order in which they must come; the last is its answer."""

    sop_instance_uid: str
    steps: tuple[tuple[str, Call | None], ...]
    folder_made: bool
    folder_named: Call | None
    """Where the object's folder was made in this trace: what made the folder's own name durable, by any thread."""

    def faults(self) -> Iterator[str]:
        """Say what is missing, and what began before the step before it had ended."""
        previous: tuple[str, Call] | None = None
        for name, call in self.steps:
            if call is None:
                yield f"{self.sop_instance_uid}: no {name}"
                continue
            if previous is not None and call.begun <= previous[1].ended:
                yield f"{self.sop_instance_uid}: {name} before {previous[0]}"
            previous = name, call
        answer = self.steps[-1][1]
        if self.folder_made and (
            self.folder_named is None or answer is None or answer.begun <= self.folder_named.ended
        ):
            yield f"{self.sop_instance_uid}: its folder was new, and its name not durable at the answer"


def command(trace: Path) -> tuple[str, ...]:
    """Words that put a program under strace; the test is skipped where that cannot be done."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    tried = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()[:200]}")
    return (strace, "-f", "-yy", "-x", "-s", _SHOWN, "-e", f"trace={TRACED}", "-o", str(trace))


def read(lines: Iterable[str]) -> list[Call]:
    """Calls that succeeded, in the order in which they ended; one that was interrupted in the log is put together."""
    calls: list[Call] = []
    begun: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, rest = int(found["thread"]), found["rest"]
        if begins := _BEGINS.match(rest):
            begun[thread] = number, begins["arguments"]
        elif ends := _ENDS.match(rest):
            at, arguments = begun.pop(thread, (number, ""))
            calls += _call(thread, (at, number), ends["name"], arguments + ends["arguments"], ends["result"])
        elif whole := _WHOLE.match(rest):
            calls += _call(thread, (number, number), whole["name"], whole["arguments"], whole["result"])
    return calls


def _call(thread: int, lines: tuple[int, int], name: str, arguments: str, result: str) -> list[Call]:
    if result.startswith("-1"):
        return []
    return [Call(thread=thread, name=name, arguments=arguments, begun=lines[0], ended=lines[1])]


def chains(calls: list[Call], digests: Mapping[str, str]) -> list[Chain]:
    """Put together the calls behind each C-STORE-RSP with Success.

    Parameters
    ----------
    digests : sha256 of the stored file by SOP Instance UID; each object is sent once
    """
    rows, found = _rows(calls, digests.values()), []
    for answer in calls:
        uid = acknowledged(answer)
        if uid is not None:
            digest = digests.get(uid, "")
            found.append(_chain(calls, answer, uid, digest, rows.get(digest)))
    return found


def _rows(calls: list[Call], digests: Iterable[str]) -> dict[str, Call]:
    """Where the row of each object was first written to the ledger's log: any thread may write for any other."""
    missing, found = set(digests), dict[str, Call]()
    for call in calls:
        if call.name == "pwrite64" and call.path.endswith("-wal"):
            page = call.texts[0]
            found |= {digest: call for digest in missing if digest in page}
            missing -= found.keys()
    return found


def acknowledged(call: Call) -> str | None:
    """SOP Instance UID of a C-STORE-RSP with Success; None where a call sends anything else."""
    if call.name != "sendto" or not call.texts:
        return None
    content = call.texts[0].encode("latin-1")
    if content[:1] != b"\x04" or _C_STORE_RSP not in content or _SUCCESS not in content:
        return None
    at = content.index(_SOP_INSTANCE_UID, content.index(_SUCCESS)) + 4
    length = int.from_bytes(content[at : at + 4], "little")
    return content[at + 4 : at + 4 + length].decode().rstrip("\0")


def _chain(calls: list[Call], answer: Call, uid: str, digest: str, frame: Call | None) -> Chain:
    """Each step is looked for where it must be, and then anywhere: what is misplaced shall be named as such."""
    mine = [call for call in calls if call.thread == answer.thread]
    renamed = _before(answer, [call for call in mine if call.name == "rename" and f"/{digest}.dcm" in call.texts[-1]])
    part, folder = (renamed.texts[0], renamed.texts[-1].rpartition("/")[0]) if renamed else ("-", "-")
    synced = _after(renamed, _on(mine, folder, "fsync"))
    writer = [call for call in calls if frame is not None and call.thread == frame.thread]
    steps = (
        ("write of the file", _before(answer, _on(mine, part, "write"))),
        ("fsync of the file", _before(answer, _on(mine, part, "fsync"))),
        ("rename", renamed),
        ("fsync of the folder", synced),
        ("write of the ledger", frame),
        ("commit of the ledger", _after(frame, _on(writer, frame.path if frame else "-", "fsync", "fdatasync"))),
        ("C-STORE-RSP", answer),
    )
    made = [call for call in calls if call.name == "mkdir" and call.texts[0] == folder]
    named = _after(made[0], _on(calls, folder.rpartition("/")[0], "fsync")) if made else None
    return Chain(sop_instance_uid=uid, steps=steps, folder_made=bool(made), folder_named=named)


def _on(calls: list[Call], path: str, *names: str) -> list[Call]:
    return [call for call in calls if call.path == path and call.name in names]


def _before(mark: Call, calls: list[Call]) -> Call | None:
    """The last that began before a call, else the first of all."""
    earlier = [call for call in calls if call.begun < mark.begun]
    return earlier[-1] if earlier else next(iter(calls), None)


def _after(mark: Call | None, calls: list[Call]) -> Call | None:
    """The first that began after a call had ended, else the last of all."""
    later = [call for call in calls if mark is not None and call.begun > mark.ended]
    return later[0] if later else next(reversed(calls), None)
