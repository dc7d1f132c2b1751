"""A RIS with a temper in a process of its own, which writes down each message that it took; and the account of them.

It takes a message as its users see it: one with a control ID that it has is the same message once more.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr_node.config.network import Address
from tests.chaos.accounting import Held
from tests.chaos.archive import Archive, Kept
from tests.node.mllp_peer import Receiver, acknowledgment, receiving

HL7 = "HL7"
"""In place of an SOP Class."""
_ADDRESSED = slice(2, 6)
"""Fields of MSH that are the destination's: sending and receiving application and facility."""
_TAKEN = "AA"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is written for a message, and whether the message is taken."""

    pieces: tuple[bytes | None, ...]
    is_taken: bool


def _says(code: str, error: str = "") -> Callable[[bytes], Reply]:
    return lambda message: Reply((acknowledgment(message, code, error),), code == _TAKEN)


def _half(message: bytes) -> Reply:
    """It is taken, and half of the answer comes."""
    return Reply((acknowledgment(message)[:40], None), is_taken=True)


def _lost(message: bytes) -> Reply:
    """It is taken, and no answer comes."""
    return Reply((None,), is_taken=True)


def _of_another_first(message: bytes) -> Reply:
    """An answer to another message comes first."""
    return Reply((acknowledgment(message, control_id="ANOTHER"), acknowledgment(message)), is_taken=True)


def _twice(message: bytes) -> Reply:
    return Reply((acknowledgment(message), acknowledgment(message)), is_taken=True)


def _hung_up(message: bytes) -> Reply:
    """It closes the connection before it has looked at the message."""
    return Reply((None,), is_taken=False)


accepting = _says(_TAKEN)
MOODS: tuple[Callable[[bytes], Reply], ...] = (
    _half, _lost, _of_another_first, _twice, _hung_up, _says("AE"), _says("AE", "207"), _says("AR", "206"),
)  # fmt: skip
"""After each of them a repeat helps, or is not needed."""
TEMPERS: dict[str, Callable[[random.Random], Callable[[bytes], Reply]]] = {
    "steady": lambda _: accepting,
    "moody": lambda chance: accepting if chance.random() < 0.5 else chance.choice(MOODS),
}


class Ris(Archive):
    """The process, and what it wrote down."""

    gets_objects = False

    @property
    def configured(self) -> dict[str, Any]:
        """As a destination of the node."""
        return {"kind": "hl7", "address": f"127.0.0.1:{self.address.port}"}

    def _target(self) -> Callable[..., None]:
        return run


def run(file: Path, address: Address, temper: str, seed: int) -> None:
    """Be an MLLP receiver until killed; what it took is written down before its answer leaves."""
    chance, lock = random.Random(seed), threading.Lock()
    with file.open("a", buffering=1) as lines:

        def answer(message: bytes) -> list[bytes | None]:
            with lock:
                reply = TEMPERS[temper](chance)(message)
                if reply.is_taken:
                    lines.write(json.dumps(asdict(read(message))) + "\n")
            return list(reply.pieces)

        with receiving(Receiver(temper=answer), port=address.port):
            threading.Event().wait()


def read(message: bytes) -> Kept:
    """A message under its control ID; the digest is that of the stored one, which is addressed to nobody."""
    header, *others = message.split(b"\r")
    fields = header.split(b"|")
    fields[_ADDRESSED] = [b""] * 4
    rows = [segment.split(b"|") for segment in others]
    study = next((row[5] for row in rows if row[0] == b"OBX" and row[3].startswith(b"110180^")), b"")
    return Kept(
        sop_instance_uid=fields[9].decode(),
        sop_class_uid=HL7,
        study_instance_uid=study.decode(),
        sha256=hashlib.sha256(b"\r".join([b"|".join(fields), *others])).hexdigest(),
        at=time.monotonic(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """What became of the messages about studies, each of which has one report."""

    lost: int
    """Studies without a message."""
    doubled: int
    """Studies with messages of two control IDs, and control IDs with two contents."""
    truncated: int
    """Messages that differ from every one that the node has."""
    repeated: int
    """Messages that came again: the same bytes under the same control ID, once for whoever takes them."""

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing truncated."""
        return not (self.lost or self.doubled or self.truncated)


def settle(node: Held, studies: Iterable[str], kept: Sequence[Kept]) -> Messages:
    """Draw up the account of one receiver, of a node at rest."""
    whole = {digest for digest, content in node.files if hashlib.sha256(content).hexdigest() == digest}
    of_study, contents = defaultdict(set), defaultdict(set)
    for one in kept:
        of_study[one.study_instance_uid].add(one.sop_instance_uid)
        contents[one.sop_instance_uid].add(one.sha256)
    two = sum(len(each) > 1 for each in of_study.values()) + sum(len(each) > 1 for each in contents.values())
    return Messages(
        lost=len(set(studies) - of_study.keys()),
        doubled=two,
        truncated=sum(one.sha256 not in whole for one in kept),
        repeated=len(kept) - len(contents),
    )
