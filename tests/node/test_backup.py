"""Backup in the order of docs/operate.md, ledger first: what comes in between is received again, nothing is DEAD."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cxr_node.dicom.read import header
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.receive import recovery
from cxr_node.node.spool.spool import Spool
from tests import builders
from tests.node.test_operator_moves import Node, rules


@contextmanager
def opened(folder: Path) -> Iterator[Node]:
    config = rules(folder)
    ledger = Ledger.open(config.spool.path)
    try:
        yield Node(config, ledger, Spool(config.spool.path), {})
    finally:
        ledger.close()


def back_up_ledger(spool: Path, target: Path) -> None:
    """As `sqlite3 FILE ".backup TARGET"`."""
    target.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(spool / FILE_NAME)) as source, closing(sqlite3.connect(target / FILE_NAME)) as copy:
        source.backup(copy)


def back_up_files(spool: Path, target: Path) -> None:
    """As `cp -a`: the times are those of the first receipt."""
    for name in ("objects", "results", "priors"):
        shutil.copytree(spool / name, target / name, copy_function=shutil.copy2)


def uid(number: int) -> str:
    return str(builders.radiograph(number).SOPInstanceUID)


def test_ledger_first_then_files_while_the_node_runs(tmp_path: Path) -> None:
    with opened(tmp_path / "first") as node:
        node.receive(1)
        assert node.answered() == 3
        node.receive(2)  # waits
        back_up_ledger(node.config.spool.path, tmp_path / "restored" / "spool")
        node.receive(3)  # in between
        node.judge()
        back_up_files(node.config.spool.path, tmp_path / "restored" / "spool")
        node.receive(4)  # after the backup
        node.judge()
        assert node.deliver() == 9
        sent = node.archive
    with opened(tmp_path / "restored") as node:
        assert recovery.rebuild(node.ledger, node.spool, header.identify).received == 1
        assert node.answered() == 6
        assert [story.instance.state for number in (1, 2, 3) for story in node.stories(uid(number))] == [
            "DELIVERED"
        ] * 3
        assert node.stories(uid(4)) == [], "the PACS must send it again"
        assert all(sent[name] == contents for name, contents in node.archive.items()), "other bytes than were sent"
        assert node.resend(rows=[1]).due == {"pacs": 3}, "results are there too"


def test_files_first_loses_what_came_in_between(tmp_path: Path) -> None:
    """Why the order matters."""
    with opened(tmp_path / "first") as node:
        node.receive(1)
        back_up_files(node.config.spool.path, tmp_path / "restored" / "spool")
        node.receive(2)
        back_up_ledger(node.config.spool.path, tmp_path / "restored" / "spool")
    with opened(tmp_path / "restored") as node:
        assert recovery.rebuild(node.ledger, node.spool, header.identify).received == 0
        assert node.answered() == 3
        (story,) = node.stories(uid(2))
        assert (story.instance.state, story.instance.reason) == ("DEAD", "spool-corrupt")
