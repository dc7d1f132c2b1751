"""Work items from a UPS manager: claimed, told of, completed when the report is stored, or canceled with a reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cxr_node.node.deliver import retention
from cxr_node.node.deliver.worklist_loop import LEASE_S, MAX_REFUSALS
from cxr_node.node.ledger import work_items
from cxr_node.node.ledger.queries import trace
from tests.node import peers, performer, ups_manager, ups_rs_server, workplace
from tests.node.performer import Performer, about, performing, sound
from tests.node.ups_manager import CODE, STATION, UpsManager, code, item_uid, listening, workitem

DONE = ["IN PROGRESS", "COMPLETED"]
GIVEN_UP = ["IN PROGRESS", "CANCELED"]


@pytest.fixture(params=["ups", "ups-rs"])
def manager(request: pytest.FixtureRequest) -> UpsManager:
    return UpsManager(kind=request.param)


@contextmanager
def node(tmp_path: Path, manager: UpsManager, **worklist: Any) -> Iterator[Performer]:
    listens: Any = ups_rs_server.listening if manager.kind == "ups-rs" else listening
    with listens(manager) as there, performing(performer.config(tmp_path / "spool", there, **worklist)) as made:
        manager.shelf = performer.shelf(made.config)
        yield made


def test_an_item_is_completed_when_its_report_is_stored(
    tmp_path: Path, manager: UpsManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="cxr_node")
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("COMPLETED", None)]
        (story,) = trace(here.ledger, item_uid(1))
        assert [event.detail for event in story.events if event.what == "worklist"] == [
            f"orders: item {item_uid(1)} CLAIMED",
            f"orders: item {item_uid(1)} COMPLETED",
        ]
    sound(manager)
    assert item.moves == DONE
    assert item.transaction.startswith("2.25.")
    assert item.progress == ["30"]
    assert sorted(item.outputs) == sorted(manager.archived)
    assert len(item.outputs) == 3
    performed = item.performed
    assert performed.PerformedStationNameCodeSequence[0] == code(STATION)
    assert performed.PerformedWorkitemCodeSequence[0] == code(CODE)
    assert performed.PerformedProcedureStepStartDateTime == "20260301120000+0000"
    group = performed.OutputInformationSequence[0]
    assert (group.TypeOfInstances, group.StudyInstanceUID) == ("DICOM", "1.2.1")
    assert group.DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"
    assert "CANARY" not in caplog.text and "19500102" not in caplog.text


def test_images_that_come_later_are_waited_for(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1, 1, 2))
    with node(tmp_path, manager) as here:
        here.run(3)
        assert item.moves == ["IN PROGRESS"]
        workplace.receive(here.config, 2)
        here.run(3)
        assert item.state == "IN PROGRESS"
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("COMPLETED", None)]
    sound(manager)
    assert len(item.outputs) == 6
    assert item.progress == ["10", "30"]


def test_many_items_each_once_and_no_more_than_allowed_in_hand(tmp_path: Path, manager: UpsManager) -> None:
    for number in range(1, 8):
        manager.add(about(number))
    manager.items[item_uid(6)].attributes.ScheduledProcedureStepPriority = "HIGH"
    most = 0
    with node(tmp_path, manager, claim_max=3) as here, closing(here.loop()) as loop:
        here.pull(loop)
        assert manager.items[item_uid(6)].state == "IN PROGRESS", "the urgent one is among the first"
        for number in range(1, 8):
            workplace.receive(here.config, number)
        for _ in range(15):
            most = max(most, sum(item.state == "IN PROGRESS" for item in manager.items.values()))
            here.pull(loop)
            here.judge()
            here.archive()
            here.clock.forward(5)
    sound(manager)
    assert [item.moves for item in manager.items.values()] == [DONE] * 7
    assert most == 3
    outputs = [uid for item in manager.items.values() for uid in item.outputs]
    assert len(outputs) == len(set(outputs)) == 21


@pytest.mark.parametrize(
    ("more", "images"),
    [
        ({"ScheduledWorkitemCodeSequence": [code("OTHER^99RIS^Other")]}, 1),
        ({"ScheduledStationNameCodeSequence": [code("AI-2^99RIS^Another")]}, 1),
        ({"InputReadinessState": "UNREADY"}, 1),
        ({"InputReadinessState": "INCOMPLETE"}, 1),
        ({"ProcedureStepState": "CANCELED"}, 1),
        ({"InputInformationSequence": []}, 1),
        ({}, 21),
    ],
)
def test_an_item_that_is_not_for_this_node_is_left_to_others(
    tmp_path: Path, manager: UpsManager, more: dict[str, Any], images: int
) -> None:
    item = manager.add(about(1, *range(1, images + 1), **more))
    manager.found = lambda _: [item.attributes]  # type: ignore[method-assign]  # as one that matches too much
    with node(tmp_path, manager) as here:
        here.run(3)
        assert here.states() == []
    assert item.moves == []
    assert manager.asked.count("get") <= 1, "and is not read again at each look"


LOST = ["find", "get", "claim", "progress", "result", "complete"]


@pytest.mark.parametrize("what", LOST)
@pytest.mark.parametrize("how", ["unheard", "unanswered"])
def test_an_answer_that_is_lost_is_asked_for_again(tmp_path: Path, manager: UpsManager, what: str, how: str) -> None:
    if (what, how) == ("find", "unanswered"):
        return
    item = manager.add(about(1))
    getattr(manager, how).append(what)
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("COMPLETED", None)]
    sound(manager)
    assert len(manager.asked) > len(LOST) or what == "progress", "of which the next one says more"
    assert item.moves == DONE
    assert (manager.unheard, manager.unanswered) == ([], [])


@pytest.mark.parametrize("what", ["reason", "cancel"])
@pytest.mark.parametrize("how", ["unheard", "unanswered"])
def test_an_answer_to_a_cancellation_that_is_lost_is_asked_for_again(
    tmp_path: Path, manager: UpsManager, what: str, how: str
) -> None:
    item = manager.add(about(1))
    getattr(manager, how).append(what)
    with node(tmp_path, manager, images_within_min=0.1) as here:
        here.run()
        assert here.states() == [("CANCELED", "images-missing")]
    sound(manager)
    assert item.moves == GIVEN_UP


def test_every_answer_is_lost_twice_and_all_is_well(tmp_path: Path, manager: UpsManager) -> None:
    for number in (1, 2):
        manager.add(about(number))
    manager.unanswered += 2 * ["get", "claim", "progress", "result", "complete"]
    manager.unheard += 2 * LOST
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1, 2)
        here.run(40)
        assert here.states() == [("COMPLETED", None)] * 2
    sound(manager)
    assert [item.moves for item in manager.items.values()] == [DONE] * 2


def test_images_that_never_come_cancel_their_item(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1, 1, 2))
    with node(tmp_path, manager, images_within_min=1) as here:
        workplace.receive(here.config, 1)
        here.run(10)
        assert item.moves == ["IN PROGRESS"]
        here.clock.forward(60)
        here.run(2)
        assert here.states() == [("CANCELED", "images-missing")]
    sound(manager)
    assert item.reason == "110523"


def test_images_that_are_all_rejected_cancel_their_item(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1, content=b"a hand")
        here.run()
        assert here.states() == [("CANCELED", "not-analysed")]
    sound(manager)
    assert item.reason == "110522"


def test_one_image_that_was_analysed_is_enough(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1, 1, 2))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1, content=b"a hand")
        workplace.receive(here.config, 2)
        here.run()
    sound(manager)
    assert (item.moves, len(item.outputs)) == (DONE, 3)


def test_an_item_whose_report_no_archive_takes_is_canceled(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        report = peers.uid(peers.ResultKind.REPORT)
        here.accepts = lambda uid: uid.startswith(report.rpartition(".")[0][:-2] + "9999")
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("CANCELED", "not-stored")]
    sound(manager)
    assert item.reason == "110501"


def test_time_that_is_up_cancels(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager, done_within_min=30, images_within_min=5) as here, closing(here.loop()) as loop:
        workplace.receive(here.config, 1)
        here.pull(loop)
        here.judge()  # and the archive is down
        here.clock.forward(29 * 60)
        here.pull(loop)
        assert item.state == "IN PROGRESS"
        here.clock.forward(60)
        here.pull(loop)
        assert here.states() == [("CANCELED", "time-is-up")]
        here.archive()
        assert len(manager.archived) == 3, "results go where they are to go all the same"
    sound(manager)
    assert item.progress == ["30", "80", "canceled"]


def test_an_item_that_another_performer_takes_is_passed_over(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        genuine = manager.change

        def be_faster(uid: str, state: str, transaction: str) -> int:
            if item.state == "SCHEDULED":
                assert genuine(uid, state, "1.2.3.4") == 0x0000
            return genuine(uid, state, transaction)

        manager.change = be_faster  # type: ignore[method-assign]
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("PASSED_OVER", None)]
    assert (item.state, item.transaction) == ("IN PROGRESS", "1.2.3.4")
    assert item.progress == []


def test_an_item_that_another_takes_after_a_claim_was_lost_is_passed_over(tmp_path: Path, manager: UpsManager) -> None:
    """Whose it is shows an update; HTTP does not say it, so there the other's end is awaited."""
    item = manager.add(about(1))
    manager.unheard.append("claim")
    genuine = manager.about_to

    def be_faster(what: str) -> int | None:
        if what == "claim" and "claim" in manager.asked and item.state == "SCHEDULED":
            assert manager.change(item_uid(1), "IN PROGRESS", "1.2.3.4") == 0x0000
        return genuine(what)

    manager.about_to = be_faster  # type: ignore[method-assign]
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run(4)
        if manager.kind == "ups-rs":
            assert here.states() == [("CLAIMING", None)]
            item.attributes.ProcedureStepState = "COMPLETED"
            here.run(3)
        assert here.states() == [("PASSED_OVER", None)]
    assert (item.transaction, item.progress) == ("1.2.3.4", [])


@pytest.mark.parametrize("end", ["CANCELED", "gone", "taken"])
@pytest.mark.parametrize("when", ["waiting", "completing"])
def test_an_item_that_the_manager_ends_is_withdrawn(tmp_path: Path, manager: UpsManager, end: str, when: str) -> None:
    """0xC300, 0xC307 and 0xC301 to what is told next; the results go where they are to go all the same.

    HTTP does not say that another has an item: it is not let go before that one has ended it.
    """
    item = manager.add(about(1))

    def ends() -> None:
        if end == "gone":
            del manager.items[item_uid(1)]
        elif end == "taken":
            item.transaction = "1.2.3.4"
        else:
            item.attributes.ProcedureStepState = end

    with node(tmp_path, manager) as here, closing(here.loop()) as loop:
        workplace.receive(here.config, 1)
        here.pull(loop)
        assert item.state == "IN PROGRESS"
        if when == "waiting":
            ends()
        here.judge()
        if when == "completing":
            here.archive()
            manager.refusals["complete"] = [0x0110]
            here.clock.forward(5)
            here.pull(loop)
            assert here.states() == [("COMPLETING", None)]
            ends()
        here.archive()
        if (end, manager.kind) == ("taken", "ups-rs"):
            for _ in range(2 * MAX_REFUSALS):
                here.clock.forward(5)
                here.pull(loop)
            assert here.states() == [("CANCELING", "refused")]
            item.attributes.ProcedureStepState = "CANCELED"
            here.clock.forward(5)
            here.pull(loop)
            assert here.states() == [("CANCELED", "refused")]
            return
        here.clock.forward(5)
        here.pull(loop)
        assert here.states() == [("WITHDRAWN", None)]
    assert len(manager.archived) == 3
    assert "COMPLETED" not in item.moves


def test_an_item_that_ended_before_it_was_claimed_is_passed_over(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        manager.refusals["claim"] = [0xC300]
        item.attributes.ProcedureStepState = "SCHEDULED"
        genuine = manager.about_to

        def ends(what: str) -> int | None:
            if what == "claim":
                item.attributes.ProcedureStepState = "CANCELED"
            return genuine(what)

        manager.about_to = ends  # type: ignore[method-assign]
        here.run(3)
        assert here.states() == [("PASSED_OVER", None)]
    assert item.moves == []


def test_a_manager_that_refuses_every_claim_keeps_its_item(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    manager.refusals["claim"] = [0xC314] * 100
    with node(tmp_path, manager) as here:
        here.run(10)
        assert here.states() == [("PASSED_OVER", None)]
    assert manager.asked.count("claim") == MAX_REFUSALS
    assert item.moves == []


def test_a_manager_that_refuses_completion_gets_a_cancellation(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    manager.refusals["complete"] = [0xC304] * 100
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run(20)
        assert here.states() == [("CANCELED", "refused")]
    sound(manager)
    assert manager.asked.count("complete") == MAX_REFUSALS
    assert item.moves == GIVEN_UP


def test_a_manager_that_takes_no_progress_and_no_reason_is_served_all_the_same(
    tmp_path: Path, manager: UpsManager
) -> None:
    for number in (1, 2):
        manager.add(about(number))
    manager.refusals |= {"progress": [0x0105] * 100, "reason": [0x0105] * 100}
    manager._is_ready = lambda item, state: True  # type: ignore[method-assign]
    with node(tmp_path, manager, images_within_min=0.2) as here:
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("COMPLETED", None), ("CANCELED", "images-missing")]
    sound(manager)


def test_a_manager_that_is_away_is_asked_until_it_is_back(tmp_path: Path, manager: UpsManager) -> None:
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        manager.unheard += ["claim"] * 30
        here.run(10)
        assert here.states() == [("CLAIMING", None)]
        manager.unheard.clear()
        here.clock.forward(3600)
        here.run()
        assert here.states() == [("COMPLETED", None)]
    assert item.moves == DONE


def test_on_each_engine_of_the_ledger(tmp_path: Path, manager: UpsManager, engine: dict[str, Any]) -> None:
    for number in (1, 2, 3):
        manager.add(about(number))
    with node(tmp_path, manager, images_within_min=0.2, claim_max=2, sections=engine) as here:
        workplace.receive(here.config, 1, 3)
        here.run(10)
        assert here.states() == [("COMPLETED", None), ("CANCELED", "images-missing"), ("COMPLETED", None)]
        here.clock.forward(2 * 86_400)
        assert work_items.forget(here.ledger, 1.0) == 3
    sound(manager)


def test_an_answer_that_nobody_can_read_ends_no_thread(tmp_path: Path, manager: UpsManager) -> None:
    manager.add(about(1))
    with node(tmp_path, manager) as here, closing(here.loop()) as loop:
        workplace.receive(here.config, 1)
        genuine = loop._manager.search

        def stumble(worklist: Any) -> Any:
            raise ValueError("CANARY")

        loop._manager.search = stumble  # type: ignore[method-assign]
        here.pull(loop)
        assert here.states() == []
        loop._manager.search = genuine  # type: ignore[method-assign]
        loop._manager.read = stumble  # type: ignore[method-assign]
        here.pull(loop)
        assert here.states() == []
        here.run()
        assert here.states() == [("COMPLETED", None)]


def test_another_machine_goes_on_where_one_died(tmp_path: Path, manager: UpsManager) -> None:
    """Under the same Transaction UID, as soon as the lease is over and not before."""
    item = manager.add(about(1))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        with closing(here.loop("there/deliver-0")) as loop:
            here.pull(loop)
        assert item.moves == ["IN PROGRESS"]
        here.clock.forward(5)
        assert work_items.claim_item(here.ledger, "orders", "there/deliver-0", LEASE_S) is not None
        transaction = item.transaction
        here.run(3, owner="here/deliver-0")
        assert item.moves == ["IN PROGRESS"]
        here.clock.forward(LEASE_S)
        here.run(owner="here/deliver-0")
        assert here.states() == [("COMPLETED", None)]
    sound(manager)
    assert item.transaction == transaction


def test_a_process_of_the_same_name_goes_on_at_once(tmp_path: Path, manager: UpsManager) -> None:
    manager.add(about(1))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run(1)
        here.clock.forward(5)
        assert work_items.claim_item(here.ledger, "orders", "here/deliver-0", LEASE_S) is not None
        here.run(5)
        assert here.states() == [("COMPLETED", None)]


def test_what_is_forgotten_has_ended(tmp_path: Path, manager: UpsManager) -> None:
    for number in (1, 2):
        manager.add(about(number))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run()
        assert here.states() == [("COMPLETED", None), ("CLAIMED", None)]
        assert work_items.forget(here.ledger, 1.0) == 0
        here.clock.forward(2 * 86_400)
        assert work_items.forget(here.ledger, 1.0) == 1
        assert here.states() == [("CLAIMED", None)]
        assert work_items.counts(here.ledger)["orders"][work_items.WorkState.CLAIMED] == 1


def test_an_image_that_is_erased_is_erased_of_what_ended(tmp_path: Path, manager: UpsManager) -> None:
    for number in (1, 2):
        manager.add(about(number, number, number + 10))
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1, 11, 2)
        here.run()
        assert here.states() == [("COMPLETED", None), ("CLAIMED", None)]
        for number in (1, 2):
            (row,) = [story.instance for story in trace(here.ledger, f"1.2.{number}")]
            assert retention.erase(here.ledger, here.spool, row.id, 1.0) is not None
        assert [len(work_items.about(here.ledger, f"1.2.{number}")) for number in (1, 11, 2)] == [0, 1, 1]


def test_nothing_of_a_patient_is_in_the_ledger(tmp_path: Path, manager: UpsManager) -> None:
    manager.add(about(1))
    with node(tmp_path, manager) as here:
        here.run(3)
    content = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("ledger*"))
    assert b"CANARY" not in content and b"19500102" not in content
    assert item_uid(1).encode() in content


def test_an_item_with_other_inputs_too_is_about_its_radiographs(tmp_path: Path, manager: UpsManager) -> None:
    made = workitem(1, performer.image(1))
    made.InputInformationSequence[0].ReferencedSOPSequence.append(
        ups_manager.dataset(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", ReferencedSOPInstanceUID="1.2.3.4")
    )
    item = manager.add(made)
    with node(tmp_path, manager) as here:
        workplace.receive(here.config, 1)
        here.run()
    assert item.moves == DONE
