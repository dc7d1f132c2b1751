"""A ledger with one of everything that may stand on a page, and with what no page should ever have to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_node.domain import AbstainReason, Decision, Finding, Origin, Reason, Verdict
from cxr_node.node.ledger import alerts, destination_health, holds, queries, set_aside, studies
from cxr_node.node.ledger.holds import HoldReason
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.states import DeadReason, Job, SetAsideReason
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import ReportPer, ResultKind, Wish
from tests.node.ledgers import ALL, digest, finding, reference, results, wishes
from tests.web import site
from tests.web.site import Site

ODD = (
    "",
    " ",
    "<b>&'\"",
    "{{ 7 * 7 }}",
    "\x00\x07\x1b[31m",
    "W" * 16,
    "\u202eRTL\u202c",
    "röntgen\u0301",
    "a\r\nSet-Cookie:",
    "</title><x>",
    "\ud7ff\ufffd\ufffe",
)
"""What a peer may call itself, at most 16 characters."""
DESTINATIONS = wishes(pacs=ALL, second=ALL)
WHOLE = Wish(per=ReportPer.STUDY, kinds=(ResultKind.REPORT, ResultKind.MEASUREMENTS))
STUDIES = {"whole": WHOLE}
SENTENCE = "<script>alert(1)</script> " + "x" * 400
DOUBT = AbstainReason.BETWEEN_THRESHOLDS


def fill(ledger: Ledger, odd: Sequence[str] = ODD) -> dict[str, int]:
    """Add a row of each kind, and one of each odd sender; ledger numbers by what became of the image."""
    numbers = {
        "delivered": _delivered(ledger, 1),
        "dead": _dead(ledger, 2),
        "refused": _refused(ledger, 3),
        "rejected": _rejected(ledger, 4),
        "uncertain": _reported(
            ledger, 5, replace(finding(), decision=Decision(verdict=Verdict.INDETERMINATE, abstain_reason=DOUBT))
        ),
        "set-aside": _dead(ledger, 6),
        "on-its-way": _reported(ledger, 7),
        "working": _working(ledger, 8),
    }
    set_aside.set_aside(ledger, [numbers["set-aside"]], SetAsideReason.TEST_IMAGE, by="olga")
    numbers["of-a-study"] = _reported_study(ledger, 10)
    numbers["for-its-study"] = _judged(ledger, 11, quiet_s=600.0)
    for place, name in enumerate(odd):
        receive(ledger, 100 + place, sender=name, station=name)
    numbers["waiting"] = receive(ledger, 9, sender="MODALITY", station="ROOM 1")
    holds.hold(ledger, "second", "olga", HoldReason.MAINTENANCE)
    holds.hold(ledger, "<gone> &'\"", "olga")
    destination_health.down(ledger, "pacs", 30.0, SENTENCE)
    alerts.begin_alert(ledger, "down pacs", "destination-down", "pacs", ledger.now())
    alerts.begin_alert(ledger, "odd", "silent-sender", "<b>&'\"\x1b", ledger.now())
    return numbers


@contextmanager
def opened(
    folder: Path, odd: Sequence[str] = ODD, sections: Mapping[str, Any] | None = None, **web: Any
) -> Iterator[Site]:
    """Start a page over such a ledger; `sections` of its configuration, and keys of `web`."""
    destinations = [
        {"name": name, "address": f"{name.upper()}@127.0.0.1:1", "report_per": wish.per.value, "send": [*wish.kinds]}
        for name, wish in (DESTINATIONS | STUDIES).items()
    ]
    with site.opened(folder, destinations=destinations, web=web, **(sections or {})) as found:
        fill(found.ledger, odd)
        yield found


def receive(ledger: Ledger, number: int, sender: str = "MODALITY", station: str | None = None) -> int:
    """Add one image that waits; its ledger number."""
    origin = Origin(calling_ae_title=sender, peer_host="10.0.0.7" if station else "", received_at=ledger.now())
    assert ledger.add(reference(number, station_name=station), origin, digest(number), 1000 + number)
    return queries.recent(ledger, 1)[0].id


def _job(ledger: Ledger, number: int) -> Job:
    receive(ledger, number, station="ROOM 1")
    job = ledger.claim_instance("worker", 600.0)
    assert job is not None
    return job


def _working(ledger: Ledger, number: int) -> int:
    return _job(ledger, number).instance_id


def _dead(ledger: Ledger, number: int) -> int:
    job = _job(ledger, number)
    assert ledger.settle_dead(job, DeadReason.FAULT, SENTENCE)
    return job.instance_id


def _rejected(ledger: Ledger, number: int) -> int:
    job = _job(ledger, number)
    assert ledger.settle_rejected(job, Rejected(reason=Reason.TOO_SMALL, sentence=SENTENCE))
    return job.instance_id


def _reported(ledger: Ledger, number: int, said: Finding | None = None) -> int:
    job = _job(ledger, number)
    assert ledger.settle_reported(job, said or finding(), results(number), DESTINATIONS)
    return job.instance_id


def _judged(ledger: Ledger, number: int, quiet_s: float = 0.0) -> int:
    """It waits for its study, which is ripe so long after its receipt."""
    job = _job(ledger, number)
    judged = Judged(text="{}", is_listed=False, ripening=Ripening(quiet_s=quiet_s, max_wait_s=quiet_s))
    assert ledger.settle_reported(job, finding(), [], STUDIES, judged)
    return job.instance_id


def _reported_study(ledger: Ledger, number: int) -> int:
    """All of it has arrived."""
    instance_id = _judged(ledger, number)
    job = studies.claim_study(ledger, "worker", 600.0)
    assert job is not None
    documents = [replace(one, per=ReportPer.STUDY) for one in results(number)[:2]]
    assert studies.settle_study(ledger, job, "PNEUMONIA", documents, STUDIES)
    while (way := ledger.claim_delivery("whole", "courier", 60.0)) is not None:
        assert ledger.settle_delivered(way, 0)
    return instance_id


def _delivered(ledger: Ledger, number: int) -> int:
    instance_id = _reported(ledger, number)
    for destination in DESTINATIONS:
        while (job := ledger.claim_delivery(destination, "courier", 60.0)) is not None:
            assert ledger.settle_delivered(job, 0)
    return instance_id


def _refused(ledger: Ledger, number: int) -> int:
    instance_id = _reported(ledger, number)
    for destination in DESTINATIONS:
        while (job := ledger.claim_delivery(destination, "courier", 60.0)) is not None:
            if destination == "pacs":
                assert ledger.settle_delivery_dead(job, status=0xC000, detail=SENTENCE)
            else:
                assert ledger.settle_delivered(job, None)
    return instance_id
