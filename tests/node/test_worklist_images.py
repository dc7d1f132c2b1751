"""Images that a work item names are fetched by C-GET, through the same door as what is sent to the node."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from cxr_node.cli import fetching
from cxr_node.config import loader
from cxr_node.domain import Priority
from cxr_node.node.deliver import courier
from cxr_node.node.deliver.input_images import InputTools
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.queries import recent, trace
from cxr_node.node.spool.spool import Area
from cxr_node.outcome import Reported
from tests.node import ledgers, peers, performer, test_priors, ups_manager, workplace
from tests.node.performer import Performer, performing, sound
from tests.node.test_priors import EXPLICIT, Source, prior
from tests.node.ups_manager import CODE, UpsManager, item_uid, workitem
from tests.patience import wait_until

IMAGE = (str(prior().StudyInstanceUID), str(prior().SeriesInstanceUID), str(prior().SOPInstanceUID))


@contextmanager
def node(
    folder: Path, manager: UpsManager, source: Source, monkeypatch: pytest.MonkeyPatch, **worklist: Any
) -> Iterator[Performer]:
    """Its archive has the images, and takes the results."""
    pulled = {"name": "orders", "workitem_code": CODE, "images_within_min": 1}
    with ups_manager.listening(manager) as there, test_priors.listening(source) as address:
        config = loader.parse(
            {
                "spool": {"path": str(folder), "min_free_mib": 0},
                "delivery": {"first_delay_s": 0.05, "max_delay_s": 0.2},
                "destinations": [{"name": "pacs", "address": str(address), "timeout_s": 5, "report_per": "image"}],
                "worklists": [pulled | {"address": str(there)} | worklist],
            }
        )
        with performing(config) as made:
            manager.shelf = performer.shelf(config)
            made.tools = InputTools(door=fetching.door, transfer_syntaxes=[EXPLICIT])
            monkeypatch.setattr(workplace, "judge", judge)
            yield made


def judge(content: bytes, *_: Any) -> Reported:
    number = int(dcmread(io.BytesIO(content)).InstanceNumber or 1)
    kinds = workplace.STANDARD_KINDS
    return Reported(finding=ledgers.finding(), artifacts=tuple(workplace.artifact(kind, number) for kind in kinds))


@pytest.mark.parametrize("by", ["item", "configuration"])
def test_images_are_fetched_from_where_item_or_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    manager, source = UpsManager(), Source()
    retrieve = "PACS" if by == "item" else "ELSEWHERE"
    item = manager.add(workitem(1, IMAGE, retrieve=retrieve, ScheduledProcedureStepPriority="HIGH"))
    more = {} if by == "item" else {"retrieve_from": "pacs"}
    with node(tmp_path / "spool", manager, source, monkeypatch, **more) as here:
        here.run()
        assert here.states() == [("COMPLETED", None)]
        (row,) = recent(here.ledger, 10)
        assert (row.sop_instance_uid, row.calling_ae_title, row.peer_host) == (IMAGE[2], "PACS", "127.0.0.1")
        kept = dcmread(io.BytesIO(here.spool.read(Area.OBJECTS, row.content_sha256)))
        assert kept == prior()
        job = trace(here.ledger, item_uid(1))[0]
        assert job.instance.id == row.id
        assert list((here.config.spool.path / "incoming").iterdir()) == []
    sound(manager)
    assert item.moves == ["IN PROGRESS", "COMPLETED"]
    assert item.progress[0] == "10"
    assert [each.SOPInstanceUID for each in source.asked] == [IMAGE[2]]


def test_an_urgent_item_makes_its_images_urgent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = UpsManager()
    manager.add(workitem(1, IMAGE, retrieve="PACS", ScheduledProcedureStepPriority="HIGH"))
    with node(tmp_path / "spool", manager, Source(), monkeypatch) as here:
        here.judge = lambda: None  # type: ignore[method-assign]
        here.run(3)
        job = here.ledger.claim_instance("me", 60.0)
        assert job is not None and job.priority is Priority.HIGH


@pytest.mark.parametrize(
    ("retrieve", "series", "asks"),
    [("ELSEWHERE", IMAGE[1], False), ("", IMAGE[1], False), ("PACS", "", False), ("PACS", "1.2.9", True)],
)
def test_what_cannot_be_fetched_is_awaited_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrieve: str, series: str, asks: bool
) -> None:
    manager, source = UpsManager(), Source()
    source.objects = []
    item = manager.add(workitem(1, (IMAGE[0], series, IMAGE[2]), retrieve=retrieve))
    with node(tmp_path / "spool", manager, source, monkeypatch) as here:
        here.run(4)
        assert item.state == "IN PROGRESS"
        here.clock.forward(60)
        here.run(3)
        assert here.states() == [("CANCELED", "images-missing")]
    assert bool(source.asked) == asks
    sound(manager)


def test_an_image_that_the_archive_has_not_yet_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, source = UpsManager(), Source()
    source.objects = []
    item = manager.add(workitem(1, IMAGE, retrieve="PACS"))
    with node(tmp_path / "spool", manager, source, monkeypatch) as here:
        here.run(3)
        assert item.state == "IN PROGRESS"
        source.objects = [prior()]
        here.run(6)
        assert here.states() == [("COMPLETED", None)]
    assert len(source.asked) >= 2


def test_an_object_that_cannot_be_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager, source = UpsManager(), Source()
    broken = prior()
    del broken.StudyInstanceUID
    source.objects = [broken]
    manager.add(workitem(1, IMAGE, retrieve="PACS"))
    with node(tmp_path / "spool", manager, source, monkeypatch) as here:
        here.run(2)
        assert recent(here.ledger, 10) == []
        assert list((here.config.spool.path / "incoming").iterdir()) == []
        here.clock.forward(60)
        here.run(3)
        assert here.states() == [("CANCELED", "images-missing")]


def test_the_process_that_delivers_performs_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real associations both ways: the manager's, the archive's for the image, and for the results."""
    manager, source, archive = UpsManager(), Source(), peers.Archive()
    item = manager.add(workitem(1, IMAGE, retrieve="PACS"))
    monkeypatch.setattr(workplace, "judge", judge)
    with (
        ups_manager.listening(manager) as there,
        test_priors.listening(source) as images,
        peers.listening(archive, ae_title="RESULTS") as results,
    ):
        config = loader.parse(
            {
                "spool": {"path": str(tmp_path / "spool"), "min_free_mib": 0},
                "destinations": [
                    {"name": "results", "address": str(results), "report_per": "image"},
                    {"name": "images", "address": str(images), "send": ["not-analysed"], "report_per": "image"},
                ],
                "worklists": [{"name": "orders", "address": str(there), "workitem_code": CODE, "every_s": 1}],
            }
        )
        stop = threading.Event()
        tools = fetching.tools([EXPLICIT])
        process = threading.Thread(target=courier.run, args=(config, stop), kwargs={"fetching": tools})
        process.start()
        try:
            with closing(Ledger.of_node(config)) as ledger:
                worker = workplace.worker(config, ledger)
                wait_until(lambda: worker.do_one() or item.state == "COMPLETED", "an image, or the end", 60)
                wait_until(lambda: item.state == "COMPLETED", "the end of the item", 60)
        finally:
            stop.set()
            process.join(30)
    assert item.moves == ["IN PROGRESS", "COMPLETED"]
    assert set(item.outputs) == set(archive.datasets)
    assert item.performed.OutputInformationSequence[0].DICOMRetrievalSequence[0].RetrieveAETitle == results.ae_title
