"""A result made again from its images: the same to the byte, or why not.

It is made as the node makes it, by a worker on a spool and a ledger of its own that are thrown away, with the time and
the sender of each image as they were. The network and the configuration are those of now.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cxr_node.config.ledger import LedgerSection
from cxr_node.config.schema import Config, SpoolSection
from cxr_node.dicom.read import header
from cxr_node.dicom.verify.difference import Making, data_set, first_difference, is_transcoded, making
from cxr_node.domain import Origin
from cxr_node.errors import DataError, ResourceError
from cxr_node.node.ledger import replaying
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.replaying import MadeOf
from cxr_node.node.spool.spool import Area, Spool, SpoolCorruptError
from cxr_node.node.work import report_chain
from cxr_node.node.work.worker import Analyser, Worker

_SENDER = "REPLAY"
_OF_PIXELS = ("PixelData", "PhotometricInterpretation")
"""What an archive changes that stores a picture otherwise than it came; in JPEG Baseline alone it is YBR_FULL_422."""
_COMPRESSED = "all but its pixels is the same, and those were compressed on the way, which is not compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of it."""

    is_identical: bool
    difference: str
    """The first element that differs; "" where none does, or nothing of this kind was made."""
    because: tuple[str, ...]
    """Why, as far as the result and the ledger say; empty where it is identical."""
    sources: int
    """Images that it was made of."""


class _Clock:
    """Stands where the images came, and moves on when told: a study must become ripe."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def replay(
    result: bytes, source: bytes | None, config: Config, analyser: Analyser, node: tuple[Ledger, Spool] | None
) -> Replayed:
    """Make a result again, of the images that the ledger knows it by, or of one file.

    Parameters
    ----------
    source : the image, where the spool has it no more, or there is no node here
    node : its ledger and spool; None: there is none, and the result itself says when its image came

    Raises
    ------
    InstanceError : it is no result of this node.
    DataError : its image is not here.
    """
    old = making(result)
    known = None if node is None else replaying.made_of(node[0], old.sop_instance_uid)
    arrivals = _arrivals(old, known, source, None if node is None else node[1])
    with tempfile.TemporaryDirectory(prefix="cxr-node-replay-") as scratch:
        made = _made(Path(scratch), config, analyser, arrivals)
    again = made.get(old.sop_instance_uid)
    if again is not None and data_set(again) == data_set(result):
        return Replayed(is_identical=True, difference="", because=(), sources=len(arrivals))
    if again is None:
        again = next((each for each in made.values() if _is_alike(each, old)), None)
    difference = "" if again is None else first_difference(result, again)
    because = _because(old, again, known, config)
    if again is not None and difference in _OF_PIXELS and is_transcoded(result, again):
        because = (_COMPRESSED,)
    return Replayed(
        is_identical=False,
        difference=difference,
        because=because,
        sources=len(arrivals),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    content: bytes
    origin: Origin
    note: str
    """Which reports of its study came before."""


def _arrivals(old: Making, known: MadeOf | None, source: bytes | None, spool: Spool | None) -> list[_Arrival]:
    if known is None or spool is None:
        if source is None or old.received_at is None:
            raise DataError("this node does not know the result; give its image by --source")
        origin = Origin(calling_ae_title=_SENDER, peer_host="localhost", received_at=old.received_at.astimezone(UTC))
        return [_Arrival(content=source, origin=origin, note="")]
    found = []
    for each in known.ingredients:
        note = ""
        try:
            content = spool.load(Area.OBJECTS, each.content_sha256)
            note = spool.noted(each.content_sha256, report_chain.NOTE, Area.OBJECTS)
        except (SpoolCorruptError, ResourceError) as error:
            if source is None or len(known.ingredients) > 1:
                raise DataError(f"image {each.instance_id} is not in the spool any more: {error}") from error
            content = source
        found.append(_Arrival(content=content, origin=each.origin, note=note))
    return found


def _made(folder: Path, config: Config, analyser: Analyser, arrivals: list[_Arrival]) -> dict[str, bytes]:
    """Whatever the node would make of the images, by SOP Instance UID."""
    place = SpoolSection(path=folder / "spool", min_free_mib=0)
    apart = config.model_copy(update={"spool": place, "ledger": LedgerSection(), "priors": None, "web": None})
    spool = Spool(place.path)
    spool.store.prepare()
    clock = _Clock(max(each.origin.received_at for each in arrivals))
    with closing(Ledger.open(place.path, None, clock)) as ledger:
        for each in arrivals:
            part = spool.begin()
            part.write(each.content)
            ref = header.inspect(part.path).ref
            stored = spool.store_object(part, each.origin.received_at)
            ledger.add(ref, each.origin, stored.sha256, stored.size_bytes)
            if each.note:
                spool.note(stored.sha256, report_chain.NOTE, each.note, Area.OBJECTS)
        worker = Worker(apart, ledger, spool, "replay", analyser)
        for wait_s in (0.0, config.study.max_wait_s + 1.0):
            clock.at += timedelta(seconds=wait_s)
            while worker.do_one():
                pass
        return {uid: spool.read(Area.RESULTS, digest) for uid, digest in replaying.results(ledger).items()}


def _is_alike(content: bytes, old: Making) -> bool:
    try:
        return making(content).sop_class_uid == old.sop_class_uid
    except Exception:  # a message to another system
        return False


def _because(old: Making, again: bytes | None, known: MadeOf | None, config: Config) -> tuple[str, ...]:
    """Name the reasons, the likeliest first."""
    if again is None:
        return ("no result of this kind is made now: another verdict, or no destination wants it (configuration)",)
    now = making(again).parts
    reasons = [
        f"{name}: {was or 'not said'}, now {now[name] or 'not said'}"
        for name, was in old.parts.items()
        if was != now[name]
    ]
    if known is not None and known.config_sha256 - {config.answer_sha256}:
        was = next(iter(known.config_sha256))
        reasons.append(f"configuration (admission, results): {was[:12]}, now {config.answer_sha256[:12]}")
    if not reasons:
        reasons.append(
            "the result says the same of its making: the image or its header differs from the one it was made of, "
            "images of its study or earlier radiographs are missing here, or the configuration differs"
        )
    return tuple(reasons)
