"""Retention of earlier radiographs: they are kept as long as an image of the study that they were fetched for."""

from __future__ import annotations

import time

from cxr_node.node.ledger import duties, prior_orders
from cxr_node.node.ledger.duties import Held
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Area, Spool

_BATCH = 100
_ORPHAN_AFTER_S = 86_400.0
"""A file that no order has for a day was fetched by a process that died, or for a ledger that was lost."""


def sweep(ledger: Ledger, spool: Spool, held: Held | None = None) -> int:
    """Delete those whose study has no image any more, and orphans; how many files went. `held` : as `retention`."""
    swept = 0
    while study_uids := prior_orders.without_images(ledger, _BATCH):
        with ledger.database.writing() as connection:
            duties.require(connection, held, ledger.now())
            for digest in prior_orders.forget(connection, study_uids):
                spool.delete(Area.PRIORS, digest)
                swept += 1
    before = time.time() - _ORPHAN_AFTER_S
    stored = set(spool.digests(Area.PRIORS))
    unnamed = stored - prior_orders.files(ledger) if stored else stored
    orphans = [digest for digest in unnamed if spool.placed_before(Area.PRIORS, digest, before)]
    for digest in orphans:
        duties.require_still(ledger, held)
        spool.delete(Area.PRIORS, digest)
    return swept + len(orphans)
