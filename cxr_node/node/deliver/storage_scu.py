"""Storage SCU: sends result objects to one destination over one association that stays open while there is work.

Knows no ledger and no schedule. Objects travel as they are stored: the bytes of the data set that were checked are
those that leave, cut and never decoded; a peer that speaks Implicit VR only gets the same values under other heads, and
one that takes compressed pictures the same pixels in fewer bytes (PS3.4 B, PS3.5 10.1, PS3.7 9.1.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from cxr_node.config.schema import Destination
from cxr_node.domain import ResultKind
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.deliver import transcode
from cxr_node.node.deliver.transcode import UNCOMPRESSED, PictureCompressor, to_implicit
from cxr_node.node.network import file_meta
from cxr_node.node.network.association import (
    EXPLICIT,
    IMPLICIT,
    Entity,
    TlsClient,
    associate,
    broken,
    deadline,
    end,
    fault,
    said,
    store,
)
from cxr_node.node.network.dimse import Message, store_request
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.network.statuses import Action, Response, judge

log = logging.getLogger(__name__)

_BASIC_TEXT_SR, _COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.34"
_COMPREHENSIVE_SR, _ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SOP_CLASSES = (_BASIC_TEXT_SR, _COMPREHENSIVE_3D_SR, _COMPREHENSIVE_SR, _ENHANCED_SR, _SECONDARY_CAPTURE)
"""Proposed in every association, so that one association serves all results of an image."""
OPTIONAL_SOP_CLASSES = {
    ResultKind.PRESENTATION_STATE: "1.2.840.10008.5.1.4.1.1.11.1",
    ResultKind.SEGMENTATION: "1.2.840.10008.5.1.4.1.1.66.4",
    ResultKind.FRAMES: "1.2.840.10008.5.1.4.1.1.7.4",
    ResultKind.KEY_OBJECT: "1.2.840.10008.5.1.4.1.1.88.59",
    ResultKind.PDF: "1.2.840.10008.5.1.4.1.1.104.1",
}
"""Proposed beside those to a destination that is sent such objects."""
_SLOWEST_BYTES_PER_S = 65536  # half of what ADSL uploads: beyond, a peer is taken for dead
_MAX_MESSAGE_ID = 65535  # PS3.7 E.1: US


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One object to send: a Part 10 file in Explicit VR Little Endian."""

    path: Path
    sop_class_uid: str
    size_bytes: int
    content: bytes = field(default=b"", repr=False, compare=False)
    """The file's bytes, where they were read already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The destination took the object; `words` says what its status means."""

    status: int
    words: str


Choose = Callable[[Sequence[Parcel]], Parcel]
"""Which of the rungs that the destination takes goes to it; called right before the first byte leaves."""


def first_of(taken: Sequence[Parcel]) -> Parcel:
    """Choose the first rung that the destination takes."""
    return taken[0]


class Link(Protocol):
    """One destination of any kind."""

    def send(self, *rungs: Parcel, choose: Choose = first_of) -> Receipt:
        """Hand one object over: of several rungs, which are the same in other SOP Classes, exactly one.

        Raises
        ------
        DeliveryError : it was not taken; says whether a repeat can help.
        """
        ...

    def close(self) -> None:
        """End what is open; the next `send` opens it again."""
        ...


def link(
    destination: Destination,
    calling_ae_title: str,
    refusals: Refusals | None = None,
    compressor: PictureCompressor = UNCOMPRESSED,
) -> Link:
    """Make the link to a destination; nothing is opened yet.

    `refusals` counts what the destination refuses or breaks, `compressor` compresses pictures where it takes them so.

    Raises
    ------
    ConfigError : a certificate or key cannot be used.
    """
    match destination:
        case Destination():
            return StorageScu(destination, destination.calling_ae_title or calling_ae_title, refusals, compressor)


class _BrokenError(DeliveryError):
    """The association ended before an answer came: nobody knows whether the object arrived."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


class StorageScu:
    """A Storage SCP as a destination. For one thread."""

    def __init__(
        self,
        destination: Destination,
        calling_ae_title: str,
        refusals: Refusals | None = None,
        compressor: PictureCompressor = UNCOMPRESSED,
    ) -> None:
        self._destination = destination
        self._squeezer = compressor
        self._compressed = transcode.syntaxes(destination.heatmap_compression, compressor)
        self._wrapping = TlsClient(destination)
        self._entity = Entity(calling_ae_title, destination.timeout_s, refusals)
        self._association: Association | None = None
        optional = {OPTIONAL_SOP_CLASSES[kind] for kind in destination.send if kind in OPTIONAL_SOP_CLASSES}
        self._sop_classes = {*SOP_CLASSES, *optional}
        self._message_id = 0

    def send(self, *rungs: Parcel, choose: Choose = first_of) -> Receipt:
        """C-STORE one object. An association that died while it was idle costs a second try, not a delay."""
        sop_classes = {parcel.sop_class_uid for parcel in rungs}
        association = self._reusable(sop_classes)
        if association is not None:
            try:
                return self._store(association, choose(_taken(association, rungs)))
            except _BrokenError:
                log.info("reopening destination=%s", self._destination.name)
        association = self._open(sop_classes)
        return self._store(association, choose(_taken(association, rungs)))

    def close(self) -> None:
        """Release the association."""
        self._squeezer.close()
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with deadline(association, self._destination.timeout_s):
                association.release()

    def _reusable(self, sop_classes: set[str]) -> Association | None:
        association = self._association
        if association is None or not association.is_established:
            return None
        if not sop_classes <= self._sop_classes:  # a class that was never proposed: negotiate anew
            self.close()
            return None
        return association

    def _open(self, sop_classes: set[str]) -> Association:
        self._association = None
        self._sop_classes |= sop_classes
        contexts = _contexts(self._sop_classes, self._compressed)
        self._association = associate(self._entity, self._destination, contexts, self._wrapping, [])
        return self._association

    def _store(self, association: Association, parcel: Parcel) -> Receipt:
        """Send it; uncompressed, from then on, to a peer that agreed to what it then refuses."""
        try:
            return self._exchange(association, parcel)
        except DeliveryError as error:
            taken = self._compressed and parcel.sop_class_uid in transcode.PICTURES
            if not (taken and error.permanent and error.status is not None):
                raise
            log.warning("pictures are sent uncompressed from now on: destination=%s %s", self._destination.name, error)
            self._compressed = ()
            return self._exchange(association, parcel)

    def _exchange(self, association: Association, parcel: Parcel) -> Receipt:
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        message = self._message(association, parcel)
        limit_s = self._destination.timeout_s + parcel.size_bytes / _SLOWEST_BYTES_PER_S
        association.dimse_timeout = 2 * limit_s  # the deadline comes first and ends even a stuck send()
        if not association.is_established:  # released by the peer a moment ago
            raise _BrokenError("the association was ended by the destination")
        with deadline(association, limit_s) as passed:
            answer = store(association, message)
        if words := fault(association, Response.C_STORE, self._message_id):
            self._abort(association)
            broken(self._entity, self._destination.address, Cause.DESTINATION_CONFUSED, words)
            raise DeliveryError(words, permanent=False)
        if answer is None or answer.Status is None:
            self._abort(association)
            raise self._unanswered(said(association), limit_s if passed.is_set() else None)
        return _verdict(int(answer.Status))

    def _unanswered(self, words: str, limit_s: float | None) -> DeliveryError:
        """Say why there is no answer; where the association broke, nobody knows whether the object arrived."""
        address = self._destination.address
        if limit_s is not None:
            error = DeliveryError(f"no answer within {limit_s:.0f} s", permanent=False)
            broken(self._entity, address, Cause.DESTINATION_MUTE, str(error))
            return error
        error = _BrokenError(f"no answer: {words or 'the association broke'}")
        broken(self._entity, address, Cause.DESTINATION_ABORTED, str(error))
        return error

    def _message(self, association: Association, parcel: Parcel) -> Message:
        """The object as it is stored, compressed where that is agreed, in Implicit VR where that alone is."""
        sop_instance_uid, data_set = _data_set(parcel)
        contexts = _syntaxes(association, parcel)
        syntax = EXPLICIT if EXPLICIT in contexts else IMPLICIT
        agreed = next((each for each in self._compressed if each in contexts), None)
        if agreed is not None and (smaller := transcode.squeeze(data_set, agreed, self._squeezer)) is not None:
            syntax, data_set = agreed, smaller
        elif syntax == IMPLICIT:
            data_set = _implicit(data_set)
        return Message(
            context_id=contexts[syntax],
            command=store_request(parcel.sop_class_uid, sop_instance_uid, self._message_id),
            data_set=data_set,
            longest=association.acceptor.maximum_length or 0,
        )

    def _abort(self, association: Association) -> None:
        self._association = None
        end(association)


def proposed(sop_classes: Iterable[str] = SOP_CLASSES, compressed: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Tell what is negotiated: SOP class and transfer syntax of every presentation context, in their order.

    Each syntax in a context of its own: the acceptor picks one syntax of each (PS3.8 9.3.2.2). `compressed` are
    proposed beside the others for pictures.
    """
    return [
        (uid, syntax)
        for uid in sorted(sop_classes)
        for syntax in (EXPLICIT, IMPLICIT, *(compressed if uid in transcode.PICTURES else ()))
    ]


def _contexts(sop_classes: set[str], compressed: Sequence[str]) -> list[PresentationContext]:
    return [build_context(uid, syntax) for uid, syntax in proposed(sop_classes, compressed)]


def _taken(association: Association, rungs: Sequence[Parcel]) -> list[Parcel]:
    """Rungs that have a presentation context, in their order. None is a fault that no repeat mends."""
    if taken := [parcel for parcel in rungs if _syntaxes(association, parcel)]:
        return taken
    refused = " or ".join(parcel.sop_class_uid for parcel in rungs)
    raise DeliveryError(f"no presentation context for SOP Class {refused}", permanent=True)


def _syntaxes(association: Association, parcel: Parcel) -> dict[str, int]:
    """Transfer syntaxes of ours that the destination accepted for an object's SOP Class, each with its context.

    Empty where only compressed ones are among them: not every picture becomes smaller, and those are sent as they are.
    """
    found = {
        str(context.transfer_syntax[0]): cast(int, context.context_id)
        for context in association.accepted_contexts
        if context.abstract_syntax == parcel.sop_class_uid
    }
    return found if EXPLICIT in found or IMPLICIT in found else {}


def _data_set(parcel: Parcel) -> tuple[str, memoryview]:
    """SOP Instance UID and data set, as they are stored."""
    try:
        return file_meta.split(parcel.content or parcel.path.read_bytes())
    except OSError as error:
        raise ResourceError(f"spool: {error.strerror}") from error
    except ValueError as error:
        raise DeliveryError(str(error), permanent=True) from error


def _implicit(data_set: memoryview) -> memoryview:
    try:
        return to_implicit(data_set)
    except ValueError as error:
        raise DeliveryError(str(error), permanent=True) from error


def _verdict(value: int) -> Receipt:
    status = judge(value)
    match status.action:
        case Action.DELIVERED:
            return Receipt(status=value, words=status.words)
        case Action.RETRY | Action.REFUSED:
            permanent = status.action is Action.REFUSED
            raise DeliveryError(f"0x{value:04X}: {status.words}", permanent=permanent, status=value)
