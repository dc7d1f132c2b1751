"""Retention of earlier radiographs: they are kept as long as an image of the study that they were fetched for."""

from __future__ import annotations

import time

from cxr_node.node.ledger import prior_orders
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.spool.spool import Area, Spool

_BATCH = 100
_ORPHAN_AFTER_S = 86_400.0
"""A file that no order has for a day was fetched by a process that died, or for a ledger that was lost."""


def sweep(ledger: Ledger, spool: Spool) -> int:
    """Delete those whose study has no image any more, and orphans; how many files went."""
    swept = 0
    while study_uids := prior_orders.without_images(ledger, _BATCH):
        with ledger.database.writing() as connection:
            for digest in prior_orders.forget(connection, study_uids):
                spool.delete(Area.PRIORS, digest)
                swept += 1
    before = time.time() - _ORPHAN_AFTER_S
    old = [digest for digest in spool.digests(Area.PRIORS) if _placed_before(spool, digest, before)]
    orphans = set(old) - prior_orders.files(ledger) if old else set()
    for digest in orphans:
        spool.delete(Area.PRIORS, digest)
    return swept + len(orphans)


def _placed_before(spool: Spool, digest: str, at_s: float) -> bool:
    """By the time of the file's name, which the kernel sets."""
    try:
        return spool.locate(Area.PRIORS, digest).stat().st_ctime < at_s
    except FileNotFoundError:
        return False
