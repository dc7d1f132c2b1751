"""Pages that neither lose nor repeat an image, counts that end at a thousand, and both off an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import rows
from cxr_node.domain import Reason
from cxr_node.node.ledger import browse, holds, listing, operator_moves, set_aside
from cxr_node.node.ledger.browse import Group, Place, Total
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.ripening import Judged, Ripening
from cxr_node.node.ledger.stages import Stage
from cxr_node.node.ledger.states import DeadReason, SetAsideReason
from cxr_node.node.ledger.tables import deliveries, instances
from cxr_node.outcome import Rejected
from tests.node import ledgers
from tests.node.ledgers import ALL, Clock, wishes
from tests.node.test_growth import MOST_GROWTH, Steps
from tests.node.test_ledger import PACS, add, claimed, clock, due, ledger, reported

__all__ = ["clock", "ledger"]  # fixtures

FEW, MANY = 200, 5_000


def ids(page: browse.Page) -> list[int]:
    return [row.id for row in page.rows]


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_lead_through_all_and_back(ledger: Ledger, clock: Clock, oldest_first: bool) -> None:
    for number in range(1, 12):
        add(ledger, clock, number)
    whole = list(range(1, 12)) if oldest_first else list(range(11, 0, -1))
    seen: list[list[int]] = []
    place = Place(oldest_first=oldest_first, size=4)
    while True:
        page = browse.page(ledger, Wanted(), place)
        seen.append(ids(page))
        assert (page.has_older if oldest_first else page.has_newer) is (len(seen) > 1)
        if not (page.has_newer if oldest_first else page.has_older):
            break
        last = page.rows[-1].id
        place = Place(oldest_first=oldest_first, size=4, **{"after" if oldest_first else "before": last})
    assert [number for page in seen for number in page] == whole
    first = seen[1][0]
    back = Place(oldest_first=oldest_first, size=4, **{"before" if oldest_first else "after": first})
    assert ids(browse.page(ledger, Wanted(), back)) == seen[0]


def test_a_page_stays_where_it_is_while_images_arrive(ledger: Ledger, clock: Clock) -> None:
    for number in range(1, 6):
        add(ledger, clock, number)
    first = browse.page(ledger, Wanted(), Place(size=2))
    add(ledger, clock, 6)
    assert ids(browse.page(ledger, Wanted(), Place(size=2, before=first.rows[-1].id))) == [3, 2]


@pytest.fixture
def mixed(ledger: Ledger, clock: Clock) -> Iterator[Ledger]:
    """One image or more at each stage; those of stage "to-deliver" have results at a held destination too."""
    rejected = Rejected(reason=Reason.COLOR, sentence="It is in color.")
    for number in (1, 2):
        add(ledger, clock, number)
        assert ledger.settle_rejected(claimed(ledger), rejected)
    add(ledger, clock, 3)
    assert ledger.settle_dead(claimed(ledger), DeadReason.FAULT, "a fault")
    reported(ledger, clock, 4, PACS)
    assert ledger.settle_delivery_dead(due(ledger), status=0x0122, detail="refused")
    for number in (5, 6):
        add(ledger, clock, number)
        set_aside.set_aside(ledger, [number], SetAsideReason.DUPLICATE, by="anna")
    reported(ledger, clock, 7, wishes(held=ALL))
    holds.hold(ledger, "held", "anna")
    add(ledger, clock, 8)
    claimed(ledger)
    add(ledger, clock, 9)
    judged = Judged(text="{}", is_listed=False, ripening=Ripening(quiet_s=15.0, max_wait_s=120.0))
    assert ledger.settle_reported(claimed(ledger), ledgers.finding(), [], {}, judged)
    add(ledger, clock, 10)
    with ledger.database.writing() as connection:
        uncertain = {"verdict": "UNCERTAIN", "abstain_reason": "views-disagree"}
        connection.execute(sa.update(instances).where(instances.c.id == 7).values(uncertain))
    yield ledger


AT = {
    Stage.WAITING: [10],
    Stage.WORKING: [8],
    Stage.FOR_STUDY: [9],
    Stage.TO_DELIVER: [7, 4],
    Stage.HELD: [7],
    Stage.SHADOW: [],
    Stage.DEAD: [4, 3],
    Stage.REJECTED: [2, 1],
    Stage.UNCERTAIN: [7],
    Stage.SET_ASIDE: [6, 5],
}


@pytest.mark.parametrize("stage", Stage)
def test_each_stage_has_its_images(mixed: Ledger, stage: Stage) -> None:
    wanted = Wanted(stage=stage)
    assert ids(browse.page(mixed, wanted)) == AT[stage]
    assert browse.count(mixed, wanted) == Total(number=len(AT[stage]), is_more=False)


def test_images_are_counted_by_what_they_have_in_common(mixed: Ledger) -> None:
    two, one = Total(number=2, is_more=False), Total(number=1, is_more=False)
    assert browse.groups(mixed, Wanted(stage=Stage.REJECTED), Group.REASON) == {"color": two}
    assert browse.groups(mixed, Wanted(stage=Stage.SET_ASIDE), Group.REASON) == {"duplicate": two}
    assert browse.groups(mixed, Wanted(stage=Stage.DEAD), Group.REASON) == {"fault": one}
    assert browse.groups(mixed, Wanted(stage=Stage.DEAD), Group.DESTINATION) == {"pacs": one}
    assert browse.groups(mixed, Wanted(stage=Stage.TO_DELIVER), Group.DESTINATION) == {"held": one, "pacs": one}
    assert browse.groups(mixed, Wanted(stage=Stage.HELD), Group.DESTINATION) == {"held": one}
    assert browse.groups(mixed, Wanted(stage=Stage.DEAD), Group.SENDER) == {"MODALITY": two}
    assert browse.groups(mixed, Wanted(stage=Stage.DEAD, sender="OTHER"), Group.SENDER) == {}


def test_a_count_says_where_it_ends(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "COUNTED", 3)
    for number in range(1, 5):
        if number == 4:
            assert str(browse.count(ledger, Wanted())) == "3"
        add(ledger, clock, number)
    assert str(browse.count(ledger, Wanted())) == "3+"
    assert str(Total(number=1000, is_more=True)) == "1,000+"


def test_all_of_one_reason_or_destination_are_tried_again(ledger: Ledger, clock: Clock) -> None:
    for number in range(1, 4):
        add(ledger, clock, number)
        reason = DeadReason.FAULT if number < 3 else DeadReason.SPOOL_CORRUPT
        assert ledger.settle_dead(claimed(ledger), reason, "it ended")
    reported(ledger, clock, 4, PACS | wishes(second=ALL))
    for name in ("pacs", "second"):
        for _ in ALL:
            assert ledger.settle_delivery_dead(due(ledger, name), status=0x0122, detail="refused")
    again = operator_moves.Again(destinations=["pacs", "second"], by="anna")
    faults = listing.condition(Wanted(stage=Stage.DEAD, reason="fault"))
    assert operator_moves.retry(ledger, faults, again).instances == 2
    there = operator_moves.Again(destinations=["second"], by="anna", unjudged=False)
    found = operator_moves.retry(ledger, listing.condition(Wanted(stage=Stage.DEAD, destination="second")), there)
    assert (found.instances, found.deliveries) == (1, 3)
    assert browse.groups(ledger, Wanted(stage=Stage.DEAD), Group.REASON) == {
        "spool-corrupt": Total(number=1, is_more=False)
    }


def test_a_page_costs_the_same_whatever_is_settled_already(tmp_path: Path) -> None:
    """Steps of SQLite's own, not time: of the page, the count and the groups of each stage."""
    seen = []
    for known in (FEW, MANY):
        rows.fill(tmp_path / str(known), known)
        clock = Clock()
        with ledgers.opened("sqlite", tmp_path / str(known), clock) as ledger:
            _ended(ledger)
            steps = Steps(ledger)
            for stage in Stage:
                for wanted in (
                    Wanted(stage=stage),
                    Wanted(stage=stage, sender="CR"),
                    Wanted(stage=stage, reason="color"),
                ):
                    with steps.of(f"{stage} {wanted.sender} {wanted.reason}"):
                        browse.page(ledger, wanted)
                        browse.count(ledger, wanted)
            seen.append(steps.spent)
    few, many = seen
    assert min(few.values()) > 0
    for what, spent in many.items():
        assert spent <= MOST_GROWTH * few[what], f"{what}: {few[what]} steps became {spent}"


def _ended(ledger: Ledger) -> None:
    """A hundred of the oldest images did not end well."""
    ends = {"REJECTED": ("color", None), "DEAD": ("fault", None), "SET_ASIDE": ("duplicate", None)}
    with ledger.database.writing() as connection:
        for place, (state, (reason, _)) in enumerate(ends.items()):
            mine = instances.c.id.between(20 * place + 1, 20 * place + 20)
            values = {"state": state, "reason": reason, "verdict": "REJECTED", "calling_ae_title": "CR"}
            connection.execute(sa.update(instances).where(mine).values(values))
        doubtful = instances.c.id.between(61, 80)
        values = {"verdict": "UNCERTAIN", "abstain_reason": "views-disagree", "calling_ae_title": "CR"}
        connection.execute(sa.update(instances).where(doubtful).values(values))
        on_its_way = instances.c.id.between(81, 100)
        connection.execute(sa.update(instances).where(on_its_way).values(state="REPORTED"))
        connection.execute(sa.update(deliveries).where(deliveries.c.id.between(241, 300)).values(state="READY"))
        connection.execute(sa.update(deliveries).where(deliveries.c.id.between(241, 250)).values(state="DEAD"))
