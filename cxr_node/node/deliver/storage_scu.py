"""Storage SCU: sends result objects to one destination over one association that stays open while there is work.

Knows no ledger and no schedule. Objects are sent as they are stored, never decoded, to a peer that accepts them so. One
that accepts Implicit VR only gets the same values in that encoding, and one that accepts no picture in JPEG-LS the
same pixels in RLE, or uncompressed (PS3.4 B, PS3.5 10.1, PS3.7 9.1.1).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from cxr_node.config.destinations import DicomDestination
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.deliver.implicit import to_implicit
from cxr_node.node.deliver.link import ResultFile, StaleConnectionError, StoreReply
from cxr_node.node.network import file_meta, pictures
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
from cxr_node.node.network.file_meta import FileMeta
from cxr_node.node.network.pictures import PictureCompressor
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.network.statuses import SUCCESS, Action, Response, judge
from cxr_node.node.network.verification import echo
from cxr_node.result_kinds import SHAPES

log = logging.getLogger(__name__)

SOP_CLASSES = tuple(
    dict.fromkeys(
        uid
        for shape in SHAPES.values()
        if shape.is_always_proposed
        for uid in (shape.sop_class_uid, *shape.alternatives)
    )
)
"""Proposed in every association, so that one association serves all results of an image."""
_SLOWEST_BYTES_PER_S = 65536  # half of what ADSL uploads: beyond, a peer is taken for dead
_MAX_MESSAGE_ID = 65535  # PS3.7 E.1: US


class StorageScu:
    """A Storage SCP as a destination. For one thread."""

    def __init__(
        self,
        destination: DicomDestination,
        node_ae_title: str,
        refusals: Refusals | None = None,
        compressor: PictureCompressor | None = None,
    ) -> None:
        self._destination = destination
        self._compressor = compressor
        self._compressed = pictures.syntaxes(destination.heatmap_compression, compressor)
        self._tls = TlsClient(destination)
        self._calling_ae_title = destination.calling_ae_title or node_ae_title
        self._entity = Entity(self._calling_ae_title, destination.timeout_s, refusals)
        self._association: Association | None = None
        self._was_idle = False
        optional = {SHAPES[kind].sop_class_uid for kind in destination.send}
        self._sop_classes = {*SOP_CLASSES, *optional}
        self._message_id = 0

    def open(self, alternatives: Sequence[ResultFile]) -> list[ResultFile]:
        """Associate, unless an association is open that proposed these SOP Classes; those with a context."""
        sop_classes = {file.sop_class_uid for file in alternatives}
        if not sop_classes <= self._sop_classes:  # a class that was never proposed: negotiate again
            self.close()
            self._sop_classes |= sop_classes
        association = self._association
        self._was_idle = association is not None and association.is_established
        if association is None or not association.is_established:
            association = self._associate()
        if accepted := [file for file in alternatives if _syntaxes(association, file)]:
            return accepted
        refused = " or ".join(file.sop_class_uid for file in alternatives)
        raise DeliveryError(f"no presentation context for SOP Class {refused}", permanent=True)

    def store(self, file: ResultFile) -> StoreReply:
        """C-STORE; uncompressed, from then on, to a peer that agreed to what it then refuses."""
        try:
            return self._exchange(file)
        except DeliveryError as error:
            was_compressed = self._compressed and file.sop_class_uid in pictures.PICTURES
            if not (was_compressed and error.permanent and error.answered):
                raise
            log.warning("pictures are sent uncompressed from now on: destination=%s %s", self._destination.name, error)
            self._compressed = ()
            return self._exchange(file)

    def close(self) -> None:
        """Release the association."""
        if self._compressor is not None:
            self._compressor.close()
        association, self._association = self._association, None
        if association is not None and association.is_established:
            with deadline(association, self._destination.timeout_s):
                association.release()

    def probe(self) -> str:
        """C-ECHO."""
        tls = self._tls.arguments()
        echo(self._destination.address, self._calling_ae_title, tls=tls)
        return f"{self._destination.address} answers the C-ECHO{' over TLS' if tls else ''}"

    def _associate(self) -> Association:
        self._association = None
        contexts = [build_context(*each) for each in proposed(self._sop_classes, self._compressed)]
        self._association = associate(self._entity, self._destination, contexts, self._tls, [])
        return self._association

    def _exchange(self, file: ResultFile) -> StoreReply:
        association = self._association
        if association is None or not association.is_established:  # released by the peer a moment ago
            raise self._broken("the association was ended by the destination")
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        message = self._message(association, file)
        limit_s = self._destination.timeout_s + file.size_bytes / _SLOWEST_BYTES_PER_S
        association.dimse_timeout = 2 * limit_s  # the deadline comes first and ends even a stuck send()
        with deadline(association, limit_s) as passed:
            answer = store(association, message)
        if words := fault(association, Response.C_STORE, self._message_id):
            self._abort(association)
            broken(self._entity, self._destination.address, Cause.DESTINATION_CONFUSED, words)
            raise DeliveryError(words, permanent=False)
        if answer is None or answer.Status is None:
            self._abort(association)
            raise self._unanswered(said(association), limit_s if passed.is_set() else None)
        return _judge(int(answer.Status))

    def _unanswered(self, words: str, limit_s: float | None) -> DeliveryError:
        """Why there is no answer; where the association broke, the object may have arrived or not."""
        address = self._destination.address
        if limit_s is not None:
            error = DeliveryError(f"no answer within {limit_s:.0f} s", permanent=False)
            broken(self._entity, address, Cause.DESTINATION_MUTE, str(error))
            return error
        error = self._broken(f"no answer: {words or 'the association broke'}")
        broken(self._entity, address, Cause.DESTINATION_ABORTED, str(error))
        return error

    def _broken(self, words: str) -> DeliveryError:
        """The association ended before an answer came: the object may have arrived or not."""
        return StaleConnectionError(words) if self._was_idle else DeliveryError(words, permanent=False)

    def _message(self, association: Association, file: ResultFile) -> Message:
        """The object as it is stored, a picture compressed where that is agreed; in Implicit VR where that alone is."""
        meta, data_set = _data_set(file)
        contexts = _syntaxes(association, file)
        agreed = next((each for each in self._compressed if each in contexts and _may_be(each, meta)), EXPLICIT)
        if meta.transfer_syntax_uid == agreed and agreed in contexts:
            syntax = agreed
        else:
            syntax, data_set = self._encoded(meta.transfer_syntax_uid, data_set, agreed, contexts)
        return Message(
            context_id=contexts[syntax],
            command=store_request(file.sop_class_uid, meta.sop_instance_uid, self._message_id),
            data_set=data_set,
            longest=association.acceptor.maximum_length or 0,
        )

    def _encoded(
        self, stored: str, data_set: memoryview, agreed: str, contexts: Mapping[str, int]
    ) -> tuple[str, memoryview]:
        """The object in another transfer syntax than that in which it is stored."""
        try:
            if stored in pictures.KEPT:
                data_set = pictures.decompress(data_set, stored, self._compressor)
            if agreed != EXPLICIT and self._compressor is not None:
                smaller = pictures.compress(data_set, agreed, self._compressor)
                if smaller is not None:
                    return agreed, smaller
            return (EXPLICIT, data_set) if EXPLICIT in contexts else (IMPLICIT, to_implicit(data_set))
        except ValueError as error:
            raise DeliveryError(str(error), permanent=True) from error
        except ResourceError as error:
            raise DeliveryError(str(error), permanent=False) from error

    def _abort(self, association: Association) -> None:
        self._association = None
        end(association)


def proposed(sop_classes: Iterable[str] = SOP_CLASSES, compressed: Sequence[str] = ()) -> list[tuple[str, str]]:
    """SOP Class and transfer syntax of every presentation context that is proposed, in order.

    Each syntax in a context of its own: the acceptor picks one syntax of each (PS3.8 9.3.2.2). `compressed` are
    proposed in addition for pictures.
    """
    return [
        (uid, syntax)
        for uid in sorted(sop_classes)
        for syntax in (EXPLICIT, IMPLICIT, *(compressed if uid in pictures.PICTURES else ()))
    ]


def _syntaxes(association: Association, file: ResultFile) -> dict[str, int]:
    """Transfer syntaxes of ours that the destination accepted for an object's SOP Class, each with its context.

    Empty where only compressed ones are among them: not every picture becomes smaller, and those are sent as they are.
    """
    found = {
        str(context.transfer_syntax[0]): cast(int, context.context_id)
        for context in association.accepted_contexts
        if context.abstract_syntax == file.sop_class_uid
    }
    return found if EXPLICIT in found or IMPLICIT in found else {}


def _may_be(syntax: str, meta: FileMeta) -> bool:
    """Whether an object may leave in a transfer syntax: with loss only if it is stored so."""
    return syntax != pictures.JPEG or meta.transfer_syntax_uid == pictures.JPEG


def _data_set(file: ResultFile) -> tuple[FileMeta, memoryview]:
    """What the file says of its data set, and that, as they are stored."""
    try:
        return file_meta.halves(file.content)
    except ValueError as error:
        raise DeliveryError(str(error), permanent=True) from error


def _judge(value: int) -> StoreReply:
    status = judge(value)
    match status.action:
        case Action.DELIVERED:
            return StoreReply(status=value, words=f"status=0x{value:04X} {status.words}", is_warning=value != SUCCESS)
        case Action.RETRY | Action.REFUSED:
            permanent = status.action is Action.REFUSED
            raise DeliveryError(f"0x{value:04X}: {status.words}", permanent=permanent, status=value)
