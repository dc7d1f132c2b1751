"""A node that has worked: a ledger with images in every state, and the configuration it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.domain import Origin, Reason
from cxr_node.node.ledger import studies
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.states import DeadReason, Job
from cxr_node.outcome import Rejected
from tests.node.ledgers import ALL, Clock, digest, finding, opened, reference, results, wishes

PACS, ARCHIVE = "pacs", "archive"
WANTED = wishes(**{PACS: ALL})


@dataclass
class Node:
    """One ledger under a clock that tests turn."""

    config: Config
    ledger: Ledger
    clock: Clock
    number: int = 0

    def receive(self, sender: str = "XR1") -> int:
        self.number += 1
        origin = Origin(calling_ae_title=sender, peer_host="10.0.0.7", received_at=self.clock())
        assert self.ledger.add(reference(self.number), origin, digest(self.number), 4711)
        return self.number

    def claim(self) -> Job:
        job = self.ledger.claim_instance("work", 60.0)
        assert job is not None
        return job

    def report(self, sender: str = "XR1") -> None:
        self.receive(sender)
        job = self.claim()
        assert self.ledger.settle_reported(job, finding(), results(job.instance_id), WANTED)

    def judge(self) -> None:
        """An image that waits for the report of its study."""
        self.receive()
        ripening = Ripening(quiet_s=self.config.study.quiet_s, max_wait_s=self.config.study.max_wait_s)
        judged = Judged(text="{}", is_listed=False, ripening=ripening)
        assert self.ledger.settle_reported(self.claim(), finding(), [], {}, judged)

    def fail(self) -> None:
        """No report of a study that is ripe can be made."""
        job = studies.claim_study(self.ledger, "work", 60.0)
        assert job is not None
        assert studies.settle_study_dead(self.ledger, job, DeadReason.FAULT, "three workers died of it")

    def reject(self, sender: str = "XR1") -> None:
        self.receive(sender)
        self.ledger.settle_rejected(self.claim(), Rejected(reason=Reason.TOO_SMALL, sentence="too small"))

    def kill(self, sender: str = "XR1") -> None:
        self.receive(sender)
        self.ledger.settle_dead(self.claim(), DeadReason.FAULT, "three workers died of it")

    def deliver(self) -> None:
        while (job := self.ledger.claim_delivery(PACS, "deliver", 60.0)) is not None:
            self.ledger.settle_delivered(job, 0)


@contextmanager
def node(folder: Path, **sections: Any) -> Iterator[Node]:
    """An empty ledger of a node that sends to one archive."""
    content: dict[str, Any] = {
        "spool": {"path": str(folder), "min_free_mib": 16},
        "destinations": [{"name": PACS, "address": "PACS@127.0.0.1:4242"}],
        "web": {},
    }
    clock = Clock()
    with opened("sqlite", folder, clock) as ledger:
        yield Node(loader.parse(content | sections), ledger, clock)
