"""What the network measured of each film is kept with its verdict, on each engine, and so is the reference."""

from __future__ import annotations

import math
from dataclasses import replace

from cxr_node.domain import CONSTANCY_CALLER, CONSTANCY_STUDY, Decision, Measurement, Reason, Verdict
from cxr_node.node.deliver import retention
from cxr_node.node.ledger import films
from cxr_node.node.ledger.counted import Counted
from cxr_node.node.ledger.films import Counts
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.operator_moves import rejudge
from cxr_node.outcome import Rejected
from tests.node import ledgers
from tests.node.ledgers import Clock
from tests.node.test_ledger import add, claimed, clock, ledger

__all__ = ["clock", "ledger"]  # fixtures
WEIGHTS = ledgers.finding().identity.weights_sha256


def measured(number: int, distance: float | None = 0.5) -> Measurement:
    return Measurement(logit=float(number), distance=distance, features=bytes([number % 256]) * 128)


def judged(ledger: Ledger, clock: Clock, number: int, sender: str = "MODALITY", **overrides: str) -> None:
    origin = replace(ledgers.origin(clock), calling_ae_title=sender)
    assert ledger.add(ledgers.reference(number, **overrides), origin, ledgers.digest(number), 1)
    job = claimed(ledger)
    assert ledger.settle_reported(job, ledgers.finding(), [], {}, counted=Counted(measurement=measured(number)))


def rejected(ledger: Ledger, clock: Clock, number: int) -> None:
    add(ledger, clock, number)
    assert ledger.settle_rejected(claimed(ledger), Rejected(reason=Reason.COLOR, sentence="It is in color."))


def test_films_come_in_the_order_of_their_receipt(ledger: Ledger, clock: Clock) -> None:
    judged(ledger, clock, 1)
    rejected(ledger, clock, 2)
    judged(ledger, clock, 3)
    judged(ledger, clock, 4, study_instance_uid="1.2.3")
    judged(ledger, clock, 5, CONSTANCY_CALLER, study_instance_uid=CONSTANCY_STUDY)
    first, refused, third = films.since(ledger, WEIGHTS)
    assert (first.logit, first.distance, first.features) == (1.0, 0.5, b"\x01" * 128)
    assert (refused.verdict, refused.is_measured) == (Verdict.REJECTED, False)
    assert third.instance_id == 3, "of a study the first film; the phantom is none"
    assert [film.instance_id for film in films.since(ledger, WEIGHTS, newest=1)] == [4]
    assert [film.is_measured for film in films.since(ledger, "0" * 64)] == [False, False, False, False]


def test_a_reference_is_fixed_once_and_outlives_its_films(ledger: Ledger, clock: Clock) -> None:
    judged(ledger, clock, 1)
    rejected(ledger, clock, 2)
    assert films.fix_reference(ledger, WEIGHTS, 2) is None
    judged(ledger, clock, 3, "OTHER")
    judged(ledger, clock, 4)
    found = films.fix_reference(ledger, WEIGHTS, 2)
    assert found is not None
    assert (found.name, found.last_instance_id) == (f"first-2 {WEIGHTS[:12]}", 3)
    assert found.logits == (1.0, 3.0) and found.senders == ("MODALITY", "OTHER")
    assert found.features == (b"\x01" * 128, b"\x03" * 128)
    assert found.counts["MODALITY"] == Counts(settled=2, rejected=1, judged=1, positive=1)
    assert found.of_sender(None) == Counts(settled=3, rejected=1, judged=2, positive=2)
    clock.forward(86_400)
    with ledger.database.writing() as connection:
        retention.delete_rows(connection, [1, 2, 3, 4])
    assert films.measured(ledger, WEIGHTS) == 0
    assert films.fix_reference(ledger, WEIGHTS, 1) == found


def test_judged_again_a_film_has_its_last_measurement(ledger: Ledger, clock: Clock) -> None:
    judged(ledger, clock, 1)
    assert rejudge(ledger, [1], by="olga")
    job = claimed(ledger)
    doubt = Decision(verdict=Verdict.NEGATIVE)
    again = replace(ledgers.finding(), decision=doubt)
    assert ledger.settle_reported(job, again, [], {}, counted=Counted(measurement=measured(9, distance=None)))
    (film,) = films.since(ledger, WEIGHTS)
    assert (film.logit, film.distance, film.verdict) == (9.0, None, Verdict.NEGATIVE)
    found = films.fix_reference(ledger, WEIGHTS, 1)
    assert found is not None and math.isnan(found.distances[0])


def test_of_what_is_refused_in_the_end_nothing_stays(ledger: Ledger, clock: Clock) -> None:
    judged(ledger, clock, 1)
    assert rejudge(ledger, [1], by="olga")
    assert ledger.settle_rejected(claimed(ledger), Rejected(reason=Reason.COLOR, sentence="It is in color."))
    assert films.measured(ledger, WEIGHTS) == 0
