"""Asking for commitment: one thread per destination that is to commit itself to what it accepted.

Knows no DICOM: `commitment` asks, `promises` remembers, `reports` takes the answers, which may come hours later.
"""

from __future__ import annotations

import logging

from cxr_node.config.schema import Destination
from cxr_node.errors import DeliveryError, ResourceError
from cxr_node.node.commitment.reports import Reports
from cxr_node.node.commitment.scu import CommitmentScu
from cxr_node.node.deliver.loop import LOOK_AFTER_S, Home, Rounds
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.commitments import Transaction
from cxr_node.node.process.logs import describe
from cxr_node.node.retry import GO_ON, MAX_PAUSE_S, Breaker, Rest

log = logging.getLogger(__name__)


class Asker(Rounds):
    """Asks one destination, in a thread of its own."""

    def __init__(self, home: Home, destination: Destination, wait_h: float) -> None:
        super().__init__(home, destination.name, destination.idle_close_s)
        self._wait_s = 3600.0 * wait_h
        self._breaker = Breaker(home.config.delivery)
        self._complained = False
        reports, ae_title = Reports(home.config, lambda: home.ledger), destination.address.ae_title
        calling = destination.calling_ae_title or home.config.listen.ae_title
        self._scu = CommitmentScu(destination, calling, lambda report: reports.take(report, ae_title), home.refusals)

    def urged(self) -> None:
        """Ask at once."""
        self._breaker.answered()

    def close(self) -> None:
        """Release the association."""
        self._scu.close()

    def do_one(self) -> Rest:
        """Ask about what is due, all of it in one N-ACTION."""
        ledger = self._home.ledger
        due_s = commitments.next_s(ledger, self.name)
        if due_s is None or due_s > commitments.GATHER_S:
            return Rest(min(LOOK_AFTER_S, LOOK_AFTER_S if due_s is None else due_s))
        if due_s > 0:  # each delivery nudges; what comes meanwhile goes with this request
            return Rest(due_s, deaf=True)
        if lost := commitments.give_up(ledger, self.name, self._home.config.delivery.max_age_h):
            log.error("accepted, not committed destination=%s objects=%d no answer came", self.name, lost)
        asked = commitments.begin(ledger, self.name)
        if asked is None:
            return GO_ON
        try:
            self._scu.request(asked)
        except DeliveryError as error:
            return self._failed(asked, error)
        except ResourceError:
            raise
        except Exception as error:
            log.error("failed destination=%s %s", self.name, describe(error))
            return self._failed(asked, DeliveryError(describe(error), permanent=False))
        self._breaker.answered()
        commitments.acknowledged(ledger, asked, self._wait_s)
        log.info(
            "asked for commitment destination=%s objects=%d transaction=%s", self.name, len(asked.references), asked.uid
        )
        return GO_ON

    def _failed(self, asked: Transaction, error: DeliveryError) -> Rest:
        """A destination that commits itself to nothing is said once to be one; the deliveries stay DELIVERED."""
        if error.permanent:
            number = commitments.refused(self._home.ledger, asked, str(error))
            level = logging.INFO if self._complained else logging.ERROR
            log.log(level, "accepted, not committed destination=%s objects=%d %s", self.name, number, error)
            self._complained = True
            return Rest(MAX_PAUSE_S, deaf=True)
        rest = self._breaker.failed()
        commitments.postpone(self._home.ledger, asked, rest.seconds, str(error))
        log.warning("commitment postponed destination=%s again_in_s=%.1f %s", self.name, rest.seconds, error)
        return rest
