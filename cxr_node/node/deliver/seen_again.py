"""Looks by QIDO-RS for what an origin server accepted: what it shows is there, what it does not show is sent again.

An answer to STOW-RS is the server's word; this is the evidence. Servers index what they took seconds or minutes
later, so an object is looked for until it is seen, for `verify_h` at most.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from cxr_node.config.destinations import DicomWebDestination
from cxr_node.node.commitment.scu import Reports
from cxr_node.node.deliver.dicomweb import is_seen
from cxr_node.node.deliver.http_client import HttpClient
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.commitments import Report, Transaction

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 5.0, 600.0
"""Between two looks for an object that is not there yet: half of its age, within these."""
_TURN_S = 60.0  # of looking, then the watchdog is fed
_NO_SUCH_OBJECT = 0x0112


class SeenAgain:
    """Asks one origin server. For one thread.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """

    words = "looked for by QIDO-RS"
    by_query = True

    def __init__(
        self, context: DeliveryContext, destination: DicomWebDestination, wait_s: float, reports: Reports
    ) -> None:
        self._ledger = context.ledger
        self._destination = destination
        self._http = HttpClient(destination, context.refusals)
        self._wait = timedelta(seconds=wait_s)
        self._reports = reports

    def request(self, asked: Transaction) -> None:
        """Look for each object; what was found before an error counts."""
        seen: list[str] = []
        missing: list[str] = []
        until = time.monotonic() + _TURN_S
        try:
            for _, uid in asked.references:
                if time.monotonic() >= until:
                    break
                (seen if is_seen(self._http, self._destination.url, uid) else missing).append(uid)
        finally:
            now = self._ledger.now()
            lost = dict.fromkeys((uid for uid in missing if now - asked.due_since[uid] >= self._wait), _NO_SUCH_OBJECT)
            if seen or lost:
                report = Report(transaction_uid=asked.uid, committed=tuple(seen), failed=lost)
                self._reports.apply(asked, report)
        ages = [(now - asked.due_since[uid]).total_seconds() for uid in missing if uid not in lost]
        pause_s = min(max(FIRST_S, min(ages, default=0.0) / 2), LONGEST_S)
        commitments.postpone(self._ledger, asked, pause_s, "QIDO-RS does not show it yet")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
