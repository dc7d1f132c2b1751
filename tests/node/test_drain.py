"""A stop behind a load balancer: it is seen first, newcomers are turned away, who is there goes on, and it ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from cxr_node.node.ledger import queries
from cxr_node.node.process import supervisor
from tests import builders
from tests.node import wire
from tests.node.receivers import receiving
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, Wire
from tests.patience import eventually
from tests.processes import Program, answers, configured, cxr_node, free_port

LOCAL_LIMIT = (2, 3, 2)
"""PS3.8 Table 9-21: rejected, transient; presentation related; local limit exceeded."""
UNKNOWN_AE_TITLE = (1, 1, 7)
LONG_S = 60


def instance(number: int) -> tuple[str, bytes]:
    dataset = builders.radiograph(number)
    return str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset))


def rejection(port: int, called: str = "CXR_NODE") -> tuple[int, ...] | None:
    """Result, source and reason; None where an association is accepted."""
    with Wire(port) as peer:
        kind, content = peer.associate(called=called)
        assert kind in (ASSOCIATE_AC, ASSOCIATE_RJ)
        return tuple(content[1:4]) if kind == ASSOCIATE_RJ else None


def test_newcomers_are_rejected_for_now_and_who_is_there_goes_on(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", drain_s=LONG_S) as node, Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.begin_store(instance(1)[0])
        node.stop.set()
        assert eventually(lambda: rejection(node.port) == LOCAL_LIMIT)
        assert rejection(node.port, called="OTHER") == UNKNOWN_AE_TITLE  # for good: another node would not take it
        peer.send_data(instance(1)[1])
        assert peer.status() == 0x0000
        time.sleep(1.2)  # silent for longer than the last grace lets anybody be
        assert peer.store(*instance(2)) == 0x0000
        assert peer.echo() == 0x0000
        assert rejection(node.port) == LOCAL_LIMIT
        node.hurry.set()
        assert peer.receive()[0] == wire.ABORT
        node.thread.join(20)
        assert not node.thread.is_alive()
        assert len(queries.recent(node.ledger, 10)) == 2
        assert node.parts() == []


def test_the_bound_ends_it(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", drain_s=0.5) as node, Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.begin_store(instance(1)[0])
        node.stop.set()
        assert eventually(lambda: not answers(node.port))
        peer.send_data(instance(1)[1])
        assert peer.status() == 0x0000
        assert peer.receive()[0] == wire.ABORT
        node.thread.join(20)
        assert not node.thread.is_alive()


def test_the_first_sigterm_drains_and_the_second_ends_it(tmp_path: Path) -> None:
    port = free_port()
    config = configured(tmp_path, "node", port, listen={"drain_s": LONG_S})
    with Program(tmp_path, *cxr_node("receive", config), name="receive") as program:
        assert eventually(lambda: answers(port) and supervisor.look(tmp_path / "spool")["receive"].running)
        with Wire(port) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            began = time.monotonic()
            program.terminate()
            assert eventually(lambda: rejection(port) == LOCAL_LIMIT)
            seen = supervisor.look(tmp_path / "spool")["receive"]
            assert (seen.running, seen.stopping) == (True, True)
            assert peer.echo() == 0x0000
            program.process.send_signal(signal.SIGTERM)
            assert peer.receive()[0] == wire.ABORT
        assert program.process.wait(LONG_S) == 0
        assert time.monotonic() - began < LONG_S
    assert (
        "draining seconds=60 associations=" in program.said()
    )  # one, or that of a question whose end is not noticed yet
    assert "cause=draining the receiver stops" in program.said()
