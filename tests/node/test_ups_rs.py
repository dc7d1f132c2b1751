"""What HTTP has of its own: statuses that prove nothing, ways to name a transaction, matching that a server lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cxr_node.config.worklists import UpsRsWorklist
from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.ups_rs import PROBED, TRANSACTION, UpsRs
from cxr_node.node.worklists import workitem
from cxr_node.node.worklists.workitem import Said, StepState
from tests.node import performer, workplace
from tests.node.performer import Performer, about, performing, sound
from tests.node.ups_manager import CODE, STATION, UpsManager, item_uid
from tests.node.ups_rs_server import Reply, Server, serving

DONE = ["IN PROGRESS", "COMPLETED"]


@pytest.fixture
def server() -> Server:
    return Server(UpsManager())


@contextmanager
def node(tmp_path: Path, server: Server, **worklist: Any) -> Iterator[Performer]:
    with serving(server) as url, performing(performer.config(tmp_path / "spool", url, **worklist)) as made:
        server.manager.shelf = performer.shelf(made.config)
        yield made


@pytest.mark.parametrize("way", TRANSACTION)
def test_every_way_to_name_a_transaction_is_tried_and_the_right_one_kept(
    tmp_path: Path, server: Server, way: str
) -> None:
    server.way = way
    items = [server.manager.add(about(number)) for number in (1, 2)]
    with node(tmp_path, server) as here:
        workplace.receive(here.config, 1, 2)
        here.run()
    sound(server.manager)
    assert [item.moves for item in items] == [DONE] * 2
    updates = [target for target in server.targets if "/workitems/" in target and "state" not in target]
    tried = [target for target in updates if "ransaction" in target]
    wrong = [target for target in tried if way and f"?{way}=" not in target]
    assert len(wrong) == TRANSACTION.index(way) if way else len(tried) == len(TRANSACTION) - 1


def test_a_manager_that_cannot_match_codes_is_asked_for_all_and_only_ours_are_taken(
    tmp_path: Path, server: Server
) -> None:
    server.matches_codes = False
    ours = server.manager.add(about(1))
    other = server.manager.add(about(2))
    other.attributes.ScheduledWorkitemCodeSequence[0].CodeValue = "ANOTHER"
    with node(tmp_path, server) as here:
        workplace.receive(here.config, 1, 2)
        here.run()
    assert (ours.moves, other.moves) == (DONE, [])


LOGIN: Reply = (200, b"<html>please log in</html>", "text/html")


@pytest.mark.parametrize(
    ("instead", "sentence"),
    [
        (LOGIN, "HTTP 200 to the .*, and no DICOM JSON: it may be a login page"),
        ((404, b"", "text/html"), "HTTP 404 to the search for an item"),
        ((503, b"", "text/html"), "HTTP 503"),
        ((302, b"", "text/html"), "HTTP 302"),
        ((401, b"", "text/html"), "HTTP 401"),
        ((200, b"[{", "application/dicom+json"), "cannot be read"),
    ],
)
def test_what_a_proxy_answers_decides_nothing(server: Server, instead: Reply, sentence: str) -> None:
    server.manager.add(about(1))
    with serving(server) as url, closing(asking(url)) as rs:
        server.instead = lambda method, path: instead
        with pytest.raises(DeliveryError, match=sentence) as read:
            rs.read(item_uid(1))
        with pytest.raises(DeliveryError):
            rs.change(item_uid(1), StepState.IN_PROGRESS, "2.25.1")
        if instead[0] != 200 or instead is LOGIN:
            with pytest.raises(DeliveryError):
                rs.update(item_uid(1), "2.25.1", workitem.progress(0, "claimed"))
        assert not read.value.permanent


def asking(url: str, **more: Any) -> UpsRs:
    return UpsRs(UpsRsWorklist.model_validate({"name": "orders", "url": url, "workitem_code": CODE, **more}))


def test_a_change_that_was_answered_and_not_made_is_none(server: Server) -> None:
    server.manager.add(about(1))
    with serving(server) as url, closing(asking(url)) as rs:
        server.instead = lambda method, path: (200, b"", "application/dicom+json") if method == "PUT" else None
        assert rs.change(item_uid(1), StepState.IN_PROGRESS, "2.25.1").said is Said.REFUSED


def test_an_item_is_gone_when_a_search_does_not_find_it(server: Server) -> None:
    with serving(server) as url, closing(asking(url)) as rs:
        assert rs.read(item_uid(1)) is None
        assert rs.change(item_uid(1), StepState.CANCELED, "2.25.1").said is Said.GONE
        assert rs.update(item_uid(1), "2.25.1", workitem.progress(0, "claimed")).said is Said.GONE
        assert rs.probe() == f"{url} answers UPS-RS"
        assert PROBED in server.targets[-1]


def test_an_outage_of_the_way_to_it_ends_no_item(tmp_path: Path, server: Server) -> None:
    """A proxy that answers 404 and 200 for everything, while the item is in progress."""
    item = server.manager.add(about(1))
    with node(tmp_path, server) as here:
        here.run(2)
        assert item.moves == ["IN PROGRESS"]
        workplace.receive(here.config, 1)
        for reply in (LOGIN, (404, b"", "text/html"), (404, b"[]", "application/json")):
            server.instead = lambda method, path, reply=reply: reply  # type: ignore[misc]
            here.run(3)
            assert here.states()[0][0] in ("CLAIMED", "COMPLETING")
        server.instead = lambda method, path: None
        here.clock.forward(60)
        here.run(4)
        assert here.states() == [("COMPLETED", None)]
    sound(server.manager)
    assert item.moves == DONE


def test_no_url_and_no_body_names_a_patient(tmp_path: Path, server: Server) -> None:
    server.manager.add(about(1))
    with node(tmp_path, server) as here:
        workplace.receive(here.config, 1)
        here.run()
    told = " ".join(server.targets) + b" ".join(server.bodies).decode()
    assert "CANARY" not in told and "0010" not in unquote(told).replace("00100", "")
    assert "00404018.00080100=CXR-AI" in unquote(server.targets[0])
    assert STATION.split("^")[0] in unquote(server.targets[0])


def test_what_is_told_is_dicom_json(tmp_path: Path, server: Server) -> None:
    server.manager.add(about(1))
    with node(tmp_path, server) as here:
        workplace.receive(here.config, 1)
        here.run()
    (told,) = [json.loads(body)[0] for body in server.bodies if b"00741216" in body]
    (step,) = told["00741216"]["Value"]
    assert step["00404051"]["vr"] == "DT"
    refs = [ref for group in step["00404033"]["Value"] for ref in group["00081199"]["Value"]]
    assert {ref["00081155"]["Value"][0] for ref in refs} == server.manager.archived
    states = [json.loads(body)[0]["00741000"]["Value"] for body in server.bodies if b"00741000" in body]
    assert states == [["IN PROGRESS"], ["COMPLETED"]]
