"""The door for STOW-RS: who may come in, how many at a time, and from the pieces of a body to durable objects.

Bodies are read on the event loop and taken apart, written and made durable on threads of the door's own, one for each
request, so that a slow disk holds back its senders (TCP) and nobody else. Knows no URL and no answer of HTTP but
`Problem`. PS3.18 10.5.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect

from cxr_node.config.page import StowSender
from cxr_node.config.schema import Config
from cxr_node.errors import ConfigError, LedgerLostError, ResourceError
from cxr_node.node.audit.recorder import SILENT, Audit, alert
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.network.failure_reasons import CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED
from cxr_node.node.network.file_meta import FileMeta
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.node.network.waiting_socket import SLOWEST_BYTES_PER_S
from cxr_node.node.receive.receiver import Inspect, Receiver, RefusedError, StoreRequest
from cxr_node.node.receive.reception import Reception
from cxr_node.node.receive.server import storage_classes
from cxr_node.node.receive.storage_scp import MESSAGE_GRACE_S
from cxr_node.node.spool.opening import open_spool
from cxr_node.web.problem import Problem
from cxr_node.web.stow.parts import Parts, Taken
from cxr_node.web.stow.senders import Senders, Visitor

log = logging.getLogger(__name__)

RETRY_AFTER_S = 30
_LATER = {"Retry-After": str(RETRY_AFTER_S)}
_STRANGERS = {
    Cause.KEY: (401, "this key is unknown"),
    Cause.HOST: (403, "this sender may not store from this address"),
    Cause.CERTIFICATE: (403, "this sender must show one of its certificates"),
}
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What comes from rooms that the door does not see, by way of `cli`."""

    inspect: Inspect
    """The header check."""
    transfer_syntaxes: Sequence[str]
    """UIDs of those that can be decoded."""
    audit: Audit = SILENT


class Door:
    """STOW-RS of one process.

    Raises
    ------
    ConfigError : there is no `web.stow`, or a key or the spool cannot be used.
    ResourceError : the spool's disk or store is full, gone or broken.
    """

    def __init__(self, config: Config, ledger: Callable[[], Ledger], tools: Tools) -> None:
        if config.web is None or config.web.stow is None:
            raise ConfigError("web.stow: is null")
        self._settings = config.web.stow
        self._senders = Senders(self._settings.senders)
        self._syntaxes, self._classes = frozenset(tools.transfer_syntaxes), storage_classes(config.listen.sop_classes)
        spool = open_spool(config.spool)
        if swept := spool.sweep():  # of this process's forerunner; those of others are locked
            log.warning("swept unfinished files=%d", swept)
        self._receiver = Receiver(config, tools.inspect, spool, partial(_open, ledger), tools.audit)
        self._refusals = Refusals(partial(alert, tools.audit))
        self._at_work = Counter[str]()
        self._threads = ThreadPoolExecutor(self._settings.max_requests, "stow")
        log.info("STOW-RS is open senders=%s", ",".join(each.name for each in self._settings.senders))

    def turn(self) -> None:
        """Log what is due; called periodically."""
        self._refusals.turn()

    def close(self) -> None:
        """Wait for what is being made durable, and end."""
        self._threads.shutdown()
        self._refusals.close()

    async def admit(self, visitor: Visitor) -> StowSender:
        """Recognize a sender.

        Raises
        ------
        Problem : 401 or 403.
        """
        found = await asyncio.to_thread(self._senders.recognize, visitor)
        if isinstance(found, StowSender):
            return found
        self._refusals.add(Refusal(cause=found, host=visitor.host))
        status, words = _STRANGERS[found]
        raise Problem(status, found, words, {"WWW-Authenticate": "Bearer"} if status == 401 else {})

    @contextmanager
    def place(self, sender: StowSender, host: str) -> Iterator[None]:
        """Take one of the places while the block runs.

        Raises
        ------
        Problem : 503, all of them are taken, or this sender's share is.
        """
        mine, limit = self._at_work[sender.name], self._settings.max_requests_per_sender
        if mine >= limit or self._at_work.total() >= self._settings.max_requests:
            self._refusals.add(Refusal(cause=Cause.LOCAL_LIMIT, host=host, ae_title=sender.name))
            words = f"as many requests come in as are taken at a time; at most {limit} of one sender"
            raise Problem(503, "busy", words, _LATER)
        self._at_work[sender.name] += 1
        try:
            yield
        finally:
            self._at_work[sender.name] -= 1

    async def take(self, pieces: AsyncIterator[bytes], boundary: bytes, visit: Visit) -> list[Taken]:
        """Take all parts of a body: what became of each.

        Raises
        ------
        Problem : 400, 408 or 503; what was complete by then is kept.
        """
        try:
            await self._in_thread(self._receiver.require_room)
            parts = Parts(boundary, _Way(self._receiver, self._refuse, visit, self._offered))
        except (RefusedError, ResourceError, LedgerLostError) as error:
            self._refusals.add(visit.refusal(Cause.OUT_OF_RESOURCES, str(error)))
            raise Problem(503, "not-now", str(error), _LATER) from None
        except FormParserError:
            raise Problem(400, "malformed", "the boundary is longer than one may be") from None
        try:
            async for piece in _in_time(pieces):
                await self._in_thread(parts.feed, piece)
            parts.end()
        except FormParserError as error:
            self._refusals.add(visit.refusal(Cause.PROTOCOL, "no valid multipart body"))
            raise Problem(400, "malformed", "this is no valid multipart/related, or it was cut") from error
        except ClientDisconnect:
            raise Problem(400, "cut", "the request ended early") from None
        except TimeoutError:
            self._refusals.add(visit.refusal(Cause.TOO_SLOW, "a request that came too slowly"))
            raise Problem(408, "slow", "the request came too slowly") from None
        finally:
            self._threads.submit(self._drop, parts, visit)  # not here: its thread may still be at it
        return parts.taken

    def _drop(self, parts: Parts, visit: Visit) -> None:
        dropped_bytes = parts.discard()
        if dropped_bytes is not None:
            self._refusals.add(visit.refusal(Cause.DROPPED, f"bytes={dropped_bytes}"))

    def _refuse(self, refusal: Refusal) -> None:
        self._refusals.add(refusal)

    def _offered(self, meta: FileMeta) -> RefusedError | None:
        """Refuse that for which a C-STORE would get no presentation context."""
        if meta.sop_class_uid not in self._classes:
            return RefusedError(CLASS_NOT_SUPPORTED, "its SOP Class is not taken here")
        if meta.transfer_syntax_uid not in self._syntaxes:
            return RefusedError(SYNTAX_NOT_SUPPORTED, "its transfer syntax is not taken here")
        return None

    async def _in_thread(self, function: Callable[..., Result], *given: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request: whose it is, and what its URL says."""

    sender: StowSender
    host: str
    study_instance_uid: str | None = None

    def refusal(self, cause: Cause, detail: str) -> Refusal:
        """A refusal of this sender."""
        return Refusal(cause=cause, host=self.host, ae_title=self.sender.name, detail=detail)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where the parts of one request go."""

    receiver: Receiver
    tell: Callable[[Refusal], None]
    visit: Visit
    offered: Callable[[FileMeta], RefusedError | None]

    def open(self, meta: FileMeta) -> Reception:
        request = StoreRequest(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            calling_ae_title=self.visit.sender.name,
            peer_host=self.visit.host,
            study_instance_uid=self.visit.study_instance_uid,
        )
        return Reception(self.receiver, request, self.offered(meta))

    def close(self, reception: Reception) -> int:
        status = reception.finish()
        told = reception.told()
        if told is not None:
            self.tell(told)
        return status

    def refuse(self, refusal: RefusedError) -> None:
        self.tell(self.visit.refusal(Cause.CANNOT_UNDERSTAND, f"status=0x{refusal.status:04X} {refusal}"))


async def _in_time(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass on what comes, as long as it comes quickly enough; what we take for it ourselves is not counted.

    Raises
    ------
    TimeoutError : the sender holds a place open by a trickle.
    """
    waited_s, came, asked_at = 0.0, 0, time.monotonic()
    async for piece in pieces:
        waited_s, came = waited_s + time.monotonic() - asked_at, came + len(piece)
        if waited_s > MESSAGE_GRACE_S + came / SLOWEST_BYTES_PER_S:
            raise TimeoutError
        yield piece
        asked_at = time.monotonic()


def _open(ledger: Callable[[], Ledger]) -> Ledger:
    """A ledger that is not there yet is a trouble of this machine's: the receiver makes it."""
    try:
        return ledger()
    except ConfigError as error:
        raise ResourceError(str(error)) from error
