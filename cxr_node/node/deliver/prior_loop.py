"""Fetches earlier radiographs while their study waits for its report: one thread, one association for each study.

Knows no DICOM: `priors` asks the source, and who reads an image's header is handed in. A study is tried once, for as
long as it waits: what cannot be fetched is settled with its reason, and the report does without it. A process that is
killed leaves an order that its successor fetches again, to the same file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxr_node.config.destinations import DicomDestination
from cxr_node.config.schema import Priors
from cxr_node.errors import ResourceError
from cxr_node.node.deliver.loop import DeliveryContext, ServiceLoop
from cxr_node.node.ledger import prior_orders
from cxr_node.node.ledger.prior_orders import NONE, NOTE, PriorOrder, PriorOutcome
from cxr_node.node.ledger.wake import wake
from cxr_node.node.priors.query import NotFetched, Reason, Wanted
from cxr_node.node.priors.retrieve import Fetched, Order, PriorScu
from cxr_node.node.process.notify import Role
from cxr_node.node.retry import LOOK_AFTER_S, NO_PAUSE, PAUSE_S, Pause
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.spool import Area, SpoolCorruptError

log = logging.getLogger(__name__)

_LONGEST_S = 180.0  # shorter than what the watchdog of this process takes for a thread that is stuck
_LEFT_ALONE_S = 30.0
_AWAY = (Reason.UNREACHABLE, Reason.TIMEOUT)
_EXPECTED = (Reason.NONE, Reason.NOT_FOUND, Reason.OTHER_ISSUER, Reason.NOT_ASKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorTools:
    """What fetching needs to know of images, from the `dicom` room."""

    wanted: Callable[[bytes], Wanted | None]
    """Whose earlier radiographs a Part 10 file asks for; None: it cannot be read."""
    transfer_syntaxes: Sequence[str]
    """That can be decoded, the preferred first."""


class PriorLoop(ServiceLoop):
    """Asks one archive, in a thread of its own."""

    def __init__(self, context: DeliveryContext, settings: Priors, source: DicomDestination, tools: PriorTools) -> None:
        super().__init__(context, source.name, source.idle_close_s)
        self._settings = settings
        self._tools = tools
        self._scu = PriorScu(source, context.config.listen.ae_title, tools.transfer_syntaxes, context.refusals)
        self._asked_again_at = float("-inf")
        prior_orders.free(context.ledger, context.owner)  # this is the only thread that leases orders by that name

    def forget_failures(self) -> None:
        """Ask at once."""
        self._asked_again_at = float("-inf")

    def close(self) -> None:
        """Nothing stays open between two studies."""

    def do_one(self) -> Pause:
        """Claim one order and settle it.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now; the order is back in the queue.
        """
        context, started = self._context, time.monotonic()
        order = prior_orders.claim_order(context.ledger, context.owner, context.config.work.lease_s)
        if order is None:
            due_s = prior_orders.next_order_s(context.ledger)
            return Pause(LOOK_AFTER_S if due_s is None else min(LOOK_AFTER_S, due_s))
        try:
            outcomes = self._noted(order) or self._kept(self._fetch(order))
        except ResourceError:
            prior_orders.release_order(context.ledger, order, delay_s=PAUSE_S)
            raise
        number = sum(each.content_sha256 is not None for each in outcomes)
        reasons = sorted({f"{each.reason}: {each.sentence}" for each in outcomes if each.reason is not None})
        words = "; ".join([f"{number} fetched from {self.name}", *reasons])
        is_held = prior_orders.settle_order(context.ledger, order, outcomes, words)
        wake(context.ledger, context.config.spool.path, Role.WORK)
        log.log(
            logging.INFO if {each.reason for each in outcomes} <= {None, *_EXPECTED} else logging.WARNING,
            "earlier radiographs source=%s instance=%d attempt=%d fetched=%d took_ms=%d %s",
            *(self.name, order.instance_id, order.attempts, number, round(1000 * (time.monotonic() - started))),
            ("; ".join(reasons) if is_held else "; ".join([*reasons, "lost-lease"])) or "-",
        )
        return NO_PAUSE

    def _noted(self, order: PriorOrder) -> list[PriorOutcome]:
        """What a report of the study said before the ledger was lost; nothing where there is no such report or file."""
        spool = self._context.spool
        words = "" if order.content_sha256 is None else spool.noted(order.content_sha256, NOTE, Area.OBJECTS)
        if words == NONE:
            return [PriorOutcome(reason=Reason.NONE, sentence="an earlier report of the study mentions none")]
        digests = words.split()
        if not all(spool.has(Area.PRIORS, each) for each in digests):
            return []
        return [PriorOutcome(content_sha256=each) for each in digests]

    def _fetch(self, order: PriorOrder) -> list[Fetched | NotFetched]:
        context = self._context
        if order.attempts > context.config.work.max_attempts:
            return _none(Reason.FAULT, f"{context.config.work.max_attempts} processes died of it")
        if time.monotonic() < self._asked_again_at:
            return _none(Reason.UNREACHABLE, "the source did not answer a moment ago, and is left alone")
        if context.spool.free_bytes() < context.config.spool.min_free_mib * MIB:
            return _none(Reason.FAULT, "the disk is below its watermark")
        wanted = self._wanted(order)
        if wanted is None:
            return _none(Reason.NOT_ASKED, "no image of the study can be read any more")
        left_s = (order.until - context.ledger.now()).total_seconds()
        limit = Order(
            studies=self._settings.studies,
            years=self._settings.years,
            max_object_bytes=context.config.listen.max_object_mib * MIB,
            ends_at=time.monotonic() + min(left_s, context.config.work.lease_s, _LONGEST_S),
        )
        found = self._scu.fetch(wanted, limit, context.spool.begin)
        if any(isinstance(each, NotFetched) and each.reason in _AWAY for each in found) and left_s > 0:
            self._asked_again_at = time.monotonic() + _LEFT_ALONE_S
        return found

    def _wanted(self, order: PriorOrder) -> Wanted | None:
        if order.content_sha256 is None:
            return None
        try:
            return self._tools.wanted(self._context.spool.read(Area.OBJECTS, order.content_sha256))
        except SpoolCorruptError:
            return None

    def _kept(self, found: Sequence[Fetched | NotFetched]) -> list[PriorOutcome]:
        """Store what came; it is safe before the ledger speaks of it."""
        outcomes = []
        try:
            for each in found:
                if isinstance(each, NotFetched):
                    outcomes.append(PriorOutcome(reason=each.reason, sentence=each.sentence))
                else:
                    outcomes.append(PriorOutcome(content_sha256=self._context.spool.store_prior(each.part).sha256))
        finally:
            for each in found:
                if isinstance(each, Fetched):
                    each.part.discard()
        return outcomes


def _none(reason: Reason, sentence: str) -> list[Fetched | NotFetched]:
    return [NotFetched(reason=reason, sentence=sentence)]
