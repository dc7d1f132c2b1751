"""The guard against slow, silent, huge and many peers, and the names inside pynetdicom that it stands on."""

from __future__ import annotations

import inspect
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynetdicom
import pytest
from pynetdicom import AE, acse, association, dimse, dul, fsm, pdu, transport
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from cxr_node.node.ledger import queries
from cxr_node.node.network import guarded_socket
from cxr_node.node.network.association import store
from cxr_node.node.network.dimse import Message
from cxr_node.node.network.waiting_socket import Checkpoint
from tests.node import wire
from tests.node.receivers import Receiving, receiving
from tests.node.test_receive import assert_clean, eventually, instance
from tests.node.wire import ASSOCIATE_AC, Wire
from tests.patience import FOR_EVER_S, PATIENCE_S


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    """A receiver whose patience is short, but longer than a busy machine keeps an honest peer waiting."""
    monkeypatch.setattr(guarded_socket, "PDU_GRACE_S", 1.5)
    monkeypatch.setattr("cxr_node.node.receive.listener.HANDSHAKE_S", 1.5)
    monkeypatch.setattr("cxr_node.node.receive.server.ARTIM_S", 1.5)
    with receiving(tmp_path / "spool") as node:
        yield node


def ended(peer: Wire) -> bool:
    """The node has closed, or aborted and closed."""
    while (answer := peer.receive())[0]:
        assert answer[0] in (wire.ABORT, wire.ASSOCIATE_RJ)
    return True


def threads() -> int:
    return threading.active_count()


OVERRIDDEN = {
    AssociationSocket: {
        "ready": "property",
        "recv": "(self, nr_bytes)",
        "send": "(self, bytestream)",
        "connect": "(self, primitive)",
        "_create_socket": "(self, address)",
        "_shutdown_socket": "(self)",
    },
    RequestHandler: {"handle": "(self)", "finish": "(self)", "_create_association": "(self)"},
    ThreadedAssociationServer: {
        "process_request": "(self, request, client_address)",
        "process_request_thread": "(self, request, client_address)",
        "shutdown_request": "(self, request)",
        "service_actions": "(self)",
        "handle_error": "(self, request, client_address)",
        "get_request": "(self)",
        "server_close": "(self)",
    },
    fsm.StateMachine: {"do_action": "(self, event)"},
    acse.ACSE: {
        "_negotiate_as_acceptor": "(self)",
        "send_reject": "(self, result, source, diagnostic)",
    },
    dimse.DIMSEServiceProvider: {
        "receive_primitive": "(self, primitive)",
        "send_msg": "(self, primitive, context_id)",
        "get_msg": "(self, block=False)",
    },
    dul.DULServiceProvider: {
        "kill_dul": "(self)",
        "receive_pdu": "(self, wait=False, timeout=None)",
        "send_pdu": "(self, primitive)",
        "_send": "(self, pdu)",
        "_decode_pdu": "(self, bytestream)",
        "_is_transport_event": "(self)",
        "idle_timer_expired": "(self)",
    },
    association.Association: {"kill": "(self)", "abort": "(self, block=True)", "set_socket": "(self, socket)"},
    AE: {"_create_socket": "(self, assoc, address, tls_args)"},
}
"""Every method that we replace, call in an unusual place, or rely on being called; with what parameters."""
SOURCES = [
    (dul.DULServiceProvider._read_pdu_data, "self.socket.recv(6)"),
    (dul.DULServiceProvider._read_pdu_data, "self.socket.recv(pdu_length)"),
    (dul.DULServiceProvider._read_pdu_data, "self._decode_pdu(bytestream)"),
    (dul.DULServiceProvider._is_transport_event, "self.socket.ready"),
    (fsm.AE_6, "dul._send(A_ASSOCIATE_RJ(primitive))"),
    (association.Association._run_reactor, "self.dul.idle_timer_expired()"),
    (dul.DULServiceProvider.run_reactor, "self._idle_timer.restart()"),
    (dul.DULServiceProvider.run_reactor, "self.event_queue.get(block=False)"),
    (dul.DULServiceProvider.run_reactor, "if self._kill_thread"),
    (dul.DULServiceProvider._process_recv_primitive, "self.to_provider_queue.queue[0]"),
    (dul.DULServiceProvider.receive_pdu, "self.to_user_queue.get("),
    (dul.DULServiceProvider.run_reactor, "self.state_machine.do_action(event)"),
    (dul.DULServiceProvider.run_reactor, "if self._process_recv_primitive()"),  # before it reads
    (dul.DULServiceProvider.run_reactor, "time.sleep(self._run_loop_delay)"),
    (dul.DULServiceProvider.__init__, "self.event_queue"),
    (fsm.DT_1, "dul._send(P_DATA_TF(primitive))"),
    (pdu.P_DATA_TF.from_primitive, "presentation_data_value.presentation_data_value = item[1]"),
    (fsm.AA_4, "assoc.dimse.msg_queue.put((None, None))"),
    (association.Association.send_c_store, "while not self._is_paused"),
    (association.Association._serve_request, "self._is_paused = False"),
    (dul.DULServiceProvider.__init__, "self.socket"),
    (dul.DULServiceProvider.kill_dul, "self._kill_thread = True"),
    (acse.ACSE.negotiate_association, "self._negotiate_as_acceptor()"),
    (acse.ACSE._negotiate_as_acceptor, "self.acceptor.supported_contexts"),
    (acse.ACSE._negotiate_as_acceptor, "self.assoc.is_established = True"),
    (fsm.DT_2, "dul.assoc.dimse.receive_primitive("),
    (fsm.DT_2, 'return "Sta6"'),  # so a P-DATA-TF that is taken beside it changes no state
    (fsm.StateMachine.do_action, "raise InvalidEventError"),
    (fsm.StateMachine.__init__, "self.current_state"),
    (association.Association.run_reactor, "self.acse.negotiate_association()"),
    (association.Association.run_reactor, "self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)"),
    (association.Association._run_reactor, "self._reactor_checkpoint.wait()"),
    (association.Association.__init__, "self._accepted_cx"),
    (association.Association.set_socket, "self.dul.socket = socket"),
    (dimse.DIMSEServiceProvider.receive_primitive, "self.msg_queue.put("),
    (dimse.DIMSEServiceProvider.get_msg, "self.msg_queue.get("),
    (RequestHandler._create_association, "deepcopy(self.server.contexts)"),
    (AssociationSocket.__init__, '"Evt5"'),
    (AssociationSocket.__init__, "self._is_connected = True"),
    (AssociationSocket.connect, "context, server_hostname = self.tls_args"),
    (AssociationSocket.send, '"Evt17"'),
    (transport.ThreadedAssociationServer.process_request_thread, "self.finish_request(request, client_address)"),
]


def test_what_is_overridden_is_what_pynetdicom_calls() -> None:
    """Fails when an update of the pinned library renames or changes what the guard replaces."""
    assert pynetdicom.__version__ == "3.0.4"
    for owner, names in OVERRIDDEN.items():
        for name, parameters in names.items():
            found = inspect.getattr_static(owner, name)
            assert (_parameters(found) if callable(found) else type(found).__name__) == parameters, f"{owner} {name}"
    for place, line in SOURCES:
        assert line in inspect.getsource(place), f"{place}: {line}"


def _parameters(function: Callable[..., object]) -> str:
    """Names and defaults, without annotations."""
    signature = inspect.signature(function)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(inspect.Signature(plain))


class _Reactor:
    """What a checkpoint sees of an association: that is "paused" before it waits, by pynetdicom, and not after."""

    _is_paused = False


def test_who_closes_the_checkpoint_is_not_told_that_a_thread_waits_which_goes_on() -> None:
    reactor: Any = _Reactor()
    checkpoint = Checkpoint(reactor)
    checkpoint.set()
    reactor._is_paused = True
    assert checkpoint.wait()
    checkpoint.clear()  # by another thread, before the reactor's next step
    assert not reactor._is_paused


def test_who_closes_the_checkpoint_is_told_when_the_thread_waits_again() -> None:
    reactor: Any = _Reactor()
    checkpoint = Checkpoint(reactor)
    thread = threading.Thread(target=checkpoint.wait, daemon=True)
    thread.start()
    eventually(lambda: reactor._is_paused)
    checkpoint.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and not reactor._is_paused


def test_nobody_waits_for_a_thread_that_has_ended() -> None:
    ended: Any = SimpleNamespace(
        dul=SimpleNamespace(socket=None),
        _reactor_checkpoint=threading.Event(),
        _is_paused=False,
        is_alive=lambda: False,
    )
    message = Message(context_id=1, command=b"", data_set=memoryview(b""), longest=0)
    assert store(ended, message) is None


@pytest.mark.parametrize("length", [0xFFFFFFF0, guarded_socket.REQUEST_PDU_BYTES + 1])
def test_a_huge_request_is_not_read(node: Receiving, length: int) -> None:
    with Wire(node.port) as peer:
        peer.send(struct.pack(">BBI", 1, 0, length))
        assert ended(peer)
    assert_clean(node)


@pytest.mark.parametrize("length", [0xFFFFFFF0, 131072 + guarded_socket.PDU_SLACK_BYTES + 1])
def test_a_huge_pdu_is_not_read(node: Receiving, length: int) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(struct.pack(">BBI", 4, 0, length))
        assert ended(peer)
    assert_clean(node)


def test_the_longest_pdu_we_offer_is_read(node: Receiving) -> None:
    with Wire(node.port) as peer:
        _, content = peer.associate()
        assert struct.pack(">BBHI", 0x51, 0, 4, 131072) in content  # PS3.8 D.1: what we told
        peer.begin_store("1.2.3")
        peer.send(wire.pdu(wire.P_DATA, wire.pdv(bytes(131072 - 6))))
        assert peer.status() == 0xC000


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
        b"\xff" * 1000,
        struct.pack(">BBI", 1, 0, 1000) + bytes(10),
        wire.pdu(1, bytes(10)),
        wire.pdu(4, wire.pdv(b"early")),
        wire.pdu(2, bytes(100)),
    ],
    ids=["nothing", "a byte", "http", "zeros", "ones", "half a PDU", "a short request", "data first", "an answer"],
)
def test_who_is_no_dicom_peer_is_let_go(node: Receiving, said: bytes) -> None:
    before = threads()
    with Wire(node.port) as peer:
        peer.send(said)
        assert ended(peer)
    assert_clean(node)
    assert eventually(lambda: threads() <= before)


def test_who_says_nothing_and_goes_is_forgotten_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port scanner; it is not waited for until the time for an A-ASSOCIATE-RQ is over."""
    monkeypatch.setattr("cxr_node.node.receive.listener.HANDSHAKE_S", FOR_EVER_S)
    monkeypatch.setattr("cxr_node.node.receive.server.ARTIM_S", FOR_EVER_S)
    with receiving(tmp_path / "spool") as node:
        before = threads()
        for _ in range(20):
            Wire(node.port).socket.close()
        assert eventually(lambda: threads() <= before)


def test_half_a_pdu_and_then_silence(node: Receiving) -> None:
    before = threads()
    with ExitStack() as stack:
        peers = [stack.enter_context(Wire(node.port)) for _ in range(8)]
        for peer in peers:
            assert peer.associate()[0] == ASSOCIATE_AC
            peer.begin_store("1.2.3")
            peer.send(struct.pack(">BBI", 4, 0, 5000) + wire.pdv(bytes(100), is_last=False)[:50])
        assert all(ended(peer) for peer in peers)
    assert eventually(lambda: threads() <= before)
    assert_clean(node)


def test_a_trickle_is_cut_however_steady(node: Receiving) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(struct.pack(">BBI", 4, 0, 5000))
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            while time.monotonic() - started < PATIENCE_S:
                peer.send(b"\0")
                time.sleep(0.02)
    assert_clean(node)


@pytest.mark.parametrize(
    "content",
    [b"\0" * 3, struct.pack(">IB", 0, 1), struct.pack(">IB", 1, 1), struct.pack(">IBB", 9, 1, 3) + b"short"],
    ids=["no head", "no length", "no control", "longer than its PDU"],
)
def test_a_pdv_that_does_not_fit_aborts_the_association(node: Receiving, content: bytes) -> None:
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send(wire.pdu(wire.P_DATA, content))
        assert peer.receive()[0] == wire.ABORT
    assert_clean(node)


def test_pdvs_may_share_a_pdu_and_bytes_may_come_singly(node: Receiving) -> None:
    uid, data_set = instance()
    command = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=uid.encode())
    pieces = (
        wire.pdv(command, is_command=True)
        + wire.pdv(data_set[:500], is_last=False)
        + wire.pdv(data_set[500:900], is_last=False)
    )
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        for byte in wire.pdu(wire.P_DATA, pieces)[:40]:
            peer.send(bytes([byte]))
            time.sleep(0.002)
        peer.send(wire.pdu(wire.P_DATA, pieces)[40:])
        for start in range(900, len(data_set), 65536):
            piece = data_set[start : start + 65536]
            peer.send(wire.pdu(wire.P_DATA, wire.pdv(piece, is_last=start + 65536 >= len(data_set))))
        assert peer.status() == 0x0000
    assert len(queries.recent(node.ledger, 10)) == 1
    assert_clean(node)


def test_damaged_conversations_end_alone(node: Receiving) -> None:
    """Bytes changed, left out and put in anywhere in a whole conversation; the same ones in every run."""
    uid, data_set = instance()
    store = wire.command(0x0001, sop_class=wire.DX.encode(), sop_instance=uid.encode())
    whole = b"".join(
        (
            wire.associate_rq({1: (wire.DX, (wire.EXPLICIT,))}),
            wire.pdu(wire.P_DATA, wire.pdv(store, is_command=True)),
            wire.pdu(wire.P_DATA, wire.pdv(data_set[:3000], is_last=False)),
            wire.pdu(wire.P_DATA, wire.pdv(data_set[3000:9000])),
            wire.pdu(0x05, bytes(4)),
        )
    )
    before, dice = threads(), random.Random(7)
    for _ in range(100):
        with Wire(node.port) as peer, suppress(OSError):
            peer.send(_damaged(whole, dice))
            peer.socket.shutdown(socket.SHUT_WR)
            while peer.receive()[0]:
                pass
    assert eventually(lambda: threads() <= before)
    assert queries.recent(node.ledger, 10) == []  # it was cut short from the beginning
    assert_clean(node)


def _damaged(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.choice((1, 2, 5, 20))):
        at = dice.randrange(min(len(damaged), dice.choice((250, 600, len(damaged)))))
        match dice.randrange(4):
            case 0:
                damaged[at] = dice.randrange(256)
            case 1:
                del damaged[at : at + dice.randrange(1, 20)]
            case 2:
                damaged[at:at] = dice.randbytes(dice.randrange(1, 20))
            case _:
                damaged[at : at + 4] = dice.choice((b"\xff\xff\xff\xf0", bytes(4)))
    return bytes(damaged)


def test_silent_connections_do_not_keep_others_out(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", max_associations=20, max_associations_per_host=20) as node, ExitStack() as stack:
        for _ in range(27):  # one less than one host may have
            stack.enter_context(Wire(node.port))
        with Wire(node.port) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.echo() == 0x0000


def test_who_has_not_asked_yet_gives_way_when_all_places_are_taken(tmp_path: Path) -> None:
    """As many silent peers as there are places, each from a host of its own; then one with something to say."""
    with receiving(tmp_path / "spool", max_associations=2) as node, ExitStack() as stack, Wire(node.port) as first:
        assert first.associate()[0] == ASSOCIATE_AC
        silent = [stack.enter_context(Wire(node.port, from_host=f"127.0.1.{n}")) for n in range(1, 40)]
        with Wire(node.port) as second:
            assert second.associate()[0] == ASSOCIATE_AC
            assert second.echo() == 0x0000
        assert first.echo() == 0x0000  # an association never gives way
        assert all(ended(peer) for peer in silent[:20])  # the oldest do


def test_one_host_leaves_associations_for_others(tmp_path: Path) -> None:
    with receiving(tmp_path / "spool", max_associations=4, max_associations_per_host=2) as node, ExitStack() as stack:
        mine = [stack.enter_context(Wire(node.port)) for _ in range(3)]
        assert [peer.associate()[0] for peer in mine] == [ASSOCIATE_AC, ASSOCIATE_AC, wire.ASSOCIATE_RJ]
        other = stack.enter_context(Wire(node.port, from_host="127.0.0.2"))
        assert other.associate()[0] == ASSOCIATE_AC


def test_objects_sent_without_waiting_wait_outside(node: Receiving) -> None:
    """One part file and three threads, however many requests are on the wire; each is answered in its turn."""
    uid, data_set = instance()
    before, most_parts, most_threads = threads(), 0, 0
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        sender = threading.Thread(target=lambda: [_send(peer, uid, data_set) for _ in range(40)])
        sender.start()
        while sender.is_alive():
            most_parts, most_threads = max(most_parts, len(node.parts())), max(most_threads, threads())
        sender.join()
        assert [peer.status() for _ in range(40)] == [0x0000] * 40
    assert most_parts <= 1
    assert most_threads <= before + 3 + 1


def _send(peer: Wire, uid: str, data_set: bytes) -> None:
    peer.begin_store(uid)
    peer.send_data(data_set)


def test_who_floods_with_requests_is_cut_off(node: Receiving) -> None:
    echo = wire.command(0x0030, sop_class=wire.VERIFICATION.encode(), has_data=False)
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        with suppress(OSError):
            peer.send(wire.pdu(wire.P_DATA, wire.pdv(echo, context_id=3, is_command=True)) * 5000)
        answers = 0
        with suppress(OSError):
            while peer.receive()[0] == wire.P_DATA:
                answers += 1
    assert answers < 5000
    assert_clean(node)


def test_a_message_in_tiny_pieces_has_a_deadline_too(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each PDU in time, and the object would still take a year."""
    monkeypatch.setattr("cxr_node.node.receive.storage_scp.MESSAGE_GRACE_S", 0.5)
    with Wire(node.port) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.begin_store("1.2.3")
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            while time.monotonic() - started < PATIENCE_S:
                peer.send(wire.pdu(wire.P_DATA, wire.pdv(b"\0", is_last=False)))
                time.sleep(0.02)
    assert_clean(node)


def test_one_host_gets_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cxr_node.node.receive.server.ARTIM_S", 3.0
    )  # the nine must still be there when the flood comes
    with receiving(tmp_path / "spool", max_associations=1) as node:
        before = threads()
        with ExitStack() as stack:
            for _ in range(9):
                stack.enter_context(Wire(node.port))
            flood = [stack.enter_context(Wire(node.port)) for _ in range(50)]
            assert all(ended(peer) for peer in flood)
            assert threads() <= before + 3 * 9  # none was made for them
            with socket.create_connection(("127.0.0.1", node.port), 20, source_address=("127.0.0.2", 0)) as other:
                other.sendall(wire.associate_rq({1: (wire.DX, (wire.EXPLICIT,))}))
                assert other.recv(1) == bytes([ASSOCIATE_AC])
        assert eventually(lambda: _heard(node))


def _heard(node: Receiving) -> bool:
    with Wire(node.port) as peer:
        return peer.associate()[0] == ASSOCIATE_AC


def test_many_associations_leave_nothing_behind(node: Receiving) -> None:
    before, files = threads(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with Wire(node.port) as peer:
            peer.associate()
            assert peer.release() == wire.RELEASE_RP
    assert eventually(lambda: threads() <= before)
    assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 2)
