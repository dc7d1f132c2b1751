"""Retention: after the configured time a settled instance's bytes go; its ledger row stays.

A result that a younger instance shares stays until that one's time has come. Killed half-way, the next sweep
takes the same files again.
"""

from __future__ import annotations

from datetime import timedelta

from cxr_node.node import history
from cxr_node.node.ledger import Ledger
from cxr_node.node.spool import Area, Spool

_BATCH = 100  # short transactions: the receiver waits for none of them


def sweep(ledger: Ledger, spool: Spool, retention_days: float) -> int:
    """Delete what is older; how many instances lost their bytes."""
    before = ledger.now() - timedelta(days=retention_days)
    swept = 0
    while found := history.expired(ledger, before, _BATCH):
        for instance in found:
            spool.delete(Area.OBJECTS, instance.content_sha256)
            for digest in instance.artifact_sha256s:
                spool.delete(Area.RESULTS, digest)
        ledger.mark_purged([instance.instance_id for instance in found])
        swept += len(found)
    return swept
