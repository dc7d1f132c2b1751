"""Asks a destination for what it accepted, by Storage Commitment or QIDO-RS: one thread for each destination.

Knows no protocol: `commitment` makes a request whose report may come hours later, `seen_again` looks and reports at
once; the ledger remembers either.
"""

from __future__ import annotations

import logging
from typing import Protocol

from cxr_node.config.destinations import AnyDestination, DicomDestination, DicomWebDestination
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.commitment.scu import CommitmentScu, Reports
from cxr_node.node.deliver.loop import DeliveryContext, ServiceLoop
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.commitments import Transaction
from cxr_node.node.process.logs import describe
from cxr_node.node.retry import LOOK_AFTER_S, MAX_PAUSE_S, NO_PAUSE, Breaker, Pause

log = logging.getLogger(__name__)


class Asker(Protocol):
    """Asks one destination. For one thread."""

    words: str
    """What it does, for the log."""
    by_query: bool
    """Whether it settles a transaction itself: what breaks off then does not count as a question."""

    def request(self, asked: Transaction) -> None:
        """Ask for the objects of a transaction; who reports settles them in the ledger.

        Raises
        ------
        DeliveryError : it could not be asked; permanently, where it never answers such a question.
        """
        ...

    def close(self) -> None:
        """Disconnect; the next request connects again."""
        ...


def _asker(context: DeliveryContext, destination: AnyDestination, wait_s: float) -> Asker:
    reports = Reports(context.config, lambda: context.ledger)
    if isinstance(destination, DicomWebDestination):
        from cxr_node.node.deliver.seen_again import SeenAgain

        return SeenAgain(context, destination, wait_s, reports)
    if not isinstance(destination, DicomDestination):
        raise TypeError(f"a destination of kind {destination.kind} is asked for nothing")
    return CommitmentScu(
        destination,
        context.config.listen.ae_title,
        lambda report: reports.take(report, destination.ae_title),
        context.refusals,
    )


class CommitmentLoop(ServiceLoop):
    """Asks one destination, in a thread of its own."""

    def __init__(self, context: DeliveryContext, destination: AnyDestination, wait_s: float) -> None:
        super().__init__(context, destination.name, destination.idle_close_s)
        self._wait_s = wait_s
        self._breaker = Breaker(context.config.delivery)
        self._complained = False
        self._asker = _asker(context, destination, wait_s)

    def forget_failures(self) -> None:
        """Request at once."""
        self._breaker.answered()

    def close(self) -> None:
        """Disconnect."""
        self._asker.close()

    def do_one(self) -> Pause:
        """Request commitment to what is due, all of it in one N-ACTION."""
        ledger = self._context.ledger
        due_s = commitments.next_s(ledger, self.name)
        if due_s is None or due_s > commitments.GATHER_S:
            return Pause(min(LOOK_AFTER_S, LOOK_AFTER_S if due_s is None else due_s))
        if due_s > 0:  # each delivery wakes this loop; what comes meanwhile goes with this request
            return Pause(due_s, is_fixed=True)
        if lost := commitments.give_up(ledger, self.name, self._context.config.delivery.max_age_h):
            log.error("accepted, not committed destination=%s objects=%d no answer came", self.name, lost)
        request = commitments.begin(ledger, self.name, by_query=self._asker.by_query)
        if request is None:
            return NO_PAUSE
        try:
            self._asker.request(request)
        except DeliveryError as error:
            return self._failed(request, error)
        except ResourceError:
            raise
        except Exception as error:
            log.error("failed destination=%s %s", self.name, describe(error))
            return self._failed(request, DeliveryError(describe(error), permanent=False))
        self._breaker.answered()
        commitments.acknowledged(ledger, request, self._wait_s)
        log.info(
            "%s destination=%s objects=%d transaction=%s",
            *(self._asker.words, self.name, len(request.references), request.uid),
        )
        return NO_PAUSE

    def _failed(self, request: Transaction, error: DeliveryError) -> Pause:
        """A destination without Storage Commitment is logged as an error once; the deliveries stay DELIVERED."""
        if error.permanent:
            number = commitments.refused(self._context.ledger, request, str(error))
            level = logging.INFO if self._complained else logging.ERROR
            log.log(level, "accepted, not committed destination=%s objects=%d %s", self.name, number, error)
            self._complained = True
            return Pause(MAX_PAUSE_S, is_fixed=True)
        pause = self._breaker.failed(error.after_s)
        commitments.postpone(self._context.ledger, request, pause.seconds, str(error))
        log.warning("commitment postponed destination=%s again_in_s=%.1f %s", self.name, pause.seconds, error)
        return pause
