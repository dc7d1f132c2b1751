"""A node that performs work items, without processes: its worklist, its worker and its archive take turns."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cxr_node.config.network import Address
from cxr_node.config.schema import Config
from cxr_node.node.deliver.input_images import InputImages, InputTools
from cxr_node.node.deliver.loop import DeliveryContext
from cxr_node.node.deliver.worklist_loop import LOOK_S, WorklistLoop, manager_of
from cxr_node.node.ledger.lease_keeper import LeaseKeeper, worker_name
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.work_item_tables import work_items
from cxr_node.node.process.notify import Role
from cxr_node.node.spool.spool import Spool
from tests.node import line_deaths, workplace
from tests.node.ledgers import Clock
from tests.node.ups_manager import CODE, STATION, UpsManager, workitem

ROUNDS = 7
"""Looks within which an item is done, or given up for an image that never comes."""
PARTS = 4
"""Tests that the deadly lines are dealt to."""


def config(folder: Path, manager: Address | str, **worklist: Any) -> Config:
    """One archive that wants results of each image, and one worklist: of an address, or of a URL."""
    place = {"kind": "ups-rs", "url": manager} if isinstance(manager, str) else {"address": str(manager)}
    pulled = {"name": "orders", "workitem_code": CODE, "station_name": STATION, "timeout_s": 2.0} | place
    pulled |= worklist
    sections = pulled.pop("sections", {})
    archive = Address(ae_title="PACS", host="127.0.0.1", port=104)
    return workplace.config(folder, archive, worklists=[pulled], **sections)


def image(number: int) -> tuple[str, str, str]:
    """What an item says of the instance that `workplace.receive` puts into the ledger."""
    return f"1.2.{number}", f"1.2.{number}.1", f"1.2.{number}.1.1"


def about(number: int, *images: int, **more: Any) -> Any:
    """Item of that number about these images; without any, about the image of its number."""
    return workitem(number, *map(image, images or (number,)), **more)


def shelf(config_: Config) -> Path:
    """Where its archive keeps a file for each object."""
    folder = config_.spool.path.with_name(f"{config_.spool.path.name}-archive")
    folder.mkdir(exist_ok=True)
    return folder


@dataclass
class Performer:
    """A ledger, a spool, and a clock that stands still."""

    config: Config
    ledger: Ledger
    clock: Clock
    spool: Spool
    tools: InputTools | None = None
    accepts: Callable[[str], bool] = lambda _: True
    """Whether the archive takes an object."""

    def loop(self, owner: str = "here/deliver-0") -> WorklistLoop:
        keeper = LeaseKeeper(self.ledger, 60.0)
        context = DeliveryContext(config=self.config, ledger=self.ledger, spool=self.spool, owner=owner, keeper=keeper)
        keeper.close()
        (worklist,) = self.config.worklists
        inputs = None if self.tools is None else InputImages(context, self.tools)
        return WorklistLoop(context, worklist, manager_of(worklist, "CXR_NODE"), inputs)

    def pull(self, loop: WorklistLoop) -> None:
        """Do all that is due now."""
        loop.forget_failures()
        for _ in range(200):
            if loop.do_one().seconds > 0:
                return
        raise AssertionError("it goes round and round")

    def judge(self) -> None:
        worker = workplace.worker(self.config, self.ledger)
        while worker.do_one():
            pass

    def archive(self) -> None:
        """Deliver what is due, and settle it."""
        for to in self.config.destinations:
            while (job := self.ledger.claim_delivery(to.name, "sender", 60.0)) is not None:
                if self.accepts(job.artifact.sop_instance_uid):
                    (shelf(self.config) / job.artifact.sop_instance_uid).touch()
                    self.ledger.settle_delivered(job, 0x0000)
                else:
                    self.ledger.settle_delivery_dead(job, status=0xA900, detail="refused")

    def run(self, rounds: int = 12, owner: str = "here/deliver-0") -> None:
        """Let everything go on, for that many looks."""
        with closing(self.loop(owner)) as loop:
            for _ in range(rounds):
                self.pull(loop)
                self.judge()
                self.archive()
                self.clock.forward(LOOK_S)

    def states(self) -> list[tuple[str, str | None]]:
        """State and reason of each item, in order."""
        with self.ledger.database.reading() as connection:
            rows = connection.execute(sa.select(work_items).order_by(work_items.c.id)).all()
        return [(row.state, row.reason) for row in rows]


@contextmanager
def performing(config_: Config, now: datetime | None = None) -> Iterator[Performer]:
    clock = Clock() if now is None else Clock(now)
    with closing(line_deaths.opened(config_, clock)) as ledger:
        spool = Spool(config_.spool.path)
        yield Performer(config=config_, ledger=ledger, clock=clock, spool=spool)


def sound(manager: UpsManager) -> None:
    """What holds whatever happened: no item is in progress, none was completed twice, or before its SR was stored."""
    for uid, item in manager.items.items():
        assert item.state != "IN PROGRESS", f"{uid} has no owner"
        assert item.moves in ([], ["IN PROGRESS", "COMPLETED"], ["IN PROGRESS", "CANCELED"], ["CANCELED"]), item.moves
    assert manager.premature == []


def main(config_: Config, now: datetime, functions: tuple[str, ...], line: line_deaths.Line) -> None:
    """Be the process that delivers, and die at that line."""
    os.fsync = line_deaths.need_not_last
    with performing(config_, now) as node, worker_name(node.ledger, config_.spool.path, Role.DELIVER) as owner:
        told = [each for each in deadly() if each.__qualname__ in functions]
        with line_deaths._tracing(
            tuple(told), lambda found: os.kill(os.getpid(), signal.SIGKILL) if found == line else None
        ):
            node.run(ROUNDS, owner=owner)


def deadly() -> tuple[Any, ...]:
    """Functions at whose every line a process is killed."""
    from cxr_node.node.ledger import work_items as rows
    from cxr_node.node.worklists.ups_scu import UpsScu

    loop = WorklistLoop
    found = (loop._look, loop._is_taken, loop._suitable)
    steps = (*found, loop._step, loop._claim, loop._watch, loop._tell, loop._complete, loop._cancel)
    moves = (rows.remember, rows.claim_item, rows.postpone, rows.progressed, rows.settle, rows._change)
    return (*steps, loop._updated, loop._changed, *moves, UpsScu.change, UpsScu.update, UpsScu.read, UpsScu.search)
