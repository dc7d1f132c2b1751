"""What becomes of an N-EVENT-REPORT of Storage Commitment, whichever association and process it came to.

Knows no association: `commitment` and `notices` read the report and say who sent it. PS3.4 J.3.3, PS3.7 10.1.1.1.8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cxr_node.config.schema import Config
from cxr_node.errors import ResourceError
from cxr_node.node.commitment.scu import INVALID_ARGUMENT, RESOURCE_LIMITATION, SUCCESS
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.commitments import Report
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.notify import Role, notify
from cxr_node.node.retry import backoff_s

log = logging.getLogger(__name__)


class Reports:
    """Settles promises by reports. Threads share it."""

    def __init__(self, config: Config, ledger: Callable[[], Ledger]) -> None:
        self._config = config
        self._ledger = ledger

    def take(self, report: Report, ae_title: str) -> int:
        """Believe a destination, and nobody else, about its own transactions; tells the status to answer."""
        try:
            return self._take(report, ae_title)
        except ResourceError as error:
            log.error("commitment report refused ae=%r %s", ae_title, error)
            return RESOURCE_LIMITATION

    def _take(self, report: Report, ae_title: str) -> int:
        ledger = self._ledger()
        asked = commitments.find(ledger, report.transaction_uid)
        titles = {to.name: to.address.ae_title for to in self._config.destinations}
        if asked is None or titles.get(asked.destination) != ae_title:
            log.warning("commitment report refused ae=%r cause='no such transaction of this peer'", ae_title)
            return INVALID_ARGUMENT
        done = commitments.answer(ledger, asked, report, lambda asks: backoff_s(self._config.delivery, max(1, asks)))
        log.log(
            logging.ERROR if done["given up"] else logging.WARNING if done["sent again"] else logging.INFO,
            "commitment reported destination=%s committed=%d sent_again=%d accepted_not_committed=%d transaction=%s",
            *(asked.destination, done["committed"], done["sent again"], done["given up"], asked.uid),
        )
        if done["sent again"]:
            notify(self._config.spool.path, Role.DELIVER)
        return SUCCESS
