"""deploy/haproxy.cfg as it is, with other addresses, in the real HAProxy before two receivers."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process import supervisor
from tests import builders
from tests.node import wire
from tests.node.certificates import Authority
from tests.node.wire import ASSOCIATE_AC, ASSOCIATE_RJ, Wire
from tests.pacs.peers import need
from tests.patience import wait_until
from tests.processes import Program, answers, configured, cxr_node, free_port, run

pytestmark = pytest.mark.pacs
SAMPLE = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
XR1, XR2 = "127.0.0.7", "127.0.0.8"
"""Hosts of two modalities; HAProxy itself calls the receivers from 127.0.0.1."""
BEHIND = {"proxy_protocol": ["127.0.0.1"], "allow_plaintext": True}
CHECKED_BY_ECHO = (
    "    default-server send-proxy-v2 check check-send-proxy inter 2s fastinter 500ms fall 2 rise 2\n    # With"
)
"""The line of the sample, and how the comment after it begins: it stands there once more, for TLS."""
SECOND_TRY_S = 5.0
"""Of a sender; HAProxy needs at most 3 s to see that a receiver drains."""


class Receiver(Program):
    """`cxr-node receive` with a spool of its own; may be started again."""

    def __init__(self, folder: Path, port: int, listen: dict[str, Any], **sections: Any) -> None:
        self.port, self.spool = port, folder / "spool"
        self.config = configured(folder, "node", port, listen=listen, **sections)
        super().__init__(folder, *cxr_node("receive", self.config), name="receive")

    def is_ready(self) -> bool:
        return supervisor.look(self.spool)["receive"].running and answers(self.port)

    def stop(self) -> int:
        """Twice SIGTERM: no draining."""
        self.terminate()
        wait_until(lambda: not self.lives() or supervisor.look(self.spool)["receive"].stopping, "it stops")
        return super().stop()

    def received(self) -> list[queries.InstanceRow]:
        with closing(Ledger.open(self.spool)) as ledger:
            return queries.recent(ledger, 10_000)


class HAProxy(Program):
    """HAProxy, ready when it has seen both receivers live."""

    def __init__(
        self, folder: Path, ports: tuple[int, int], *changes: tuple[str, str], pages: Sequence[int] = ()
    ) -> None:
        need("haproxy")
        self.port, self.metrics_port = free_port(), free_port()
        page = Authority(folder, "page-ca").issue("page")
        (folder / "page.pem").write_bytes(page.certificate.read_bytes() + page.key.read_bytes())
        first, second = ports
        check_a, check_b = (f" port {page}" for page in pages) if pages else ("", "")
        places = (
            ("bind :11112", f"bind 127.0.0.1:{self.port}"),
            ("bind :443 ", f"bind 127.0.0.1:{free_port()} "),
            ("bind 127.0.0.1:8404", f"bind 127.0.0.1:{self.metrics_port}"),
            ("/etc/haproxy/page.pem", str(folder / "page.pem")),
            ("server a 10.0.0.11:11112", f"server a 127.0.0.1:{first}{check_a}"),
            ("server b 10.0.0.12:11112", f"server b 127.0.0.1:{second}{check_b}"),
            ("10.0.0.11:8042", f"127.0.0.1:{free_port()}"),  # nobody is there: the page is not what is tested
            ("10.0.0.12:8042", f"127.0.0.1:{free_port()}"),
        )
        file = folder / "haproxy.cfg"
        sample = SAMPLE.read_text()
        file.write_text(substituted(asking_the_page(sample) if pages else sample, *places, *changes))
        super().__init__(folder, "haproxy", "-db", "-f", file)

    def state(self, server: str) -> str:
        """Of a receiver, as Prometheus is told."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as answer:
            figures = answer.read().decode()
        line = rf'^haproxy_server_status{{proxy="receivers",server="{server}",state="(\w+)"}} 1$'
        found = re.search(line, figures, re.MULTILINE)
        assert found is not None, figures
        return found[1]

    def is_ready(self) -> bool:
        with suppress(OSError):
            return self.state("a") == self.state("b") == "UP"
        return False


def substituted(text: str, *changes: tuple[str, str]) -> str:
    """Change what must differ here, and nothing that is not there."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    if os.geteuid() != 0:  # only the superuser becomes somebody else
        text = re.sub(r"^ +(user|group) .*\n", "", text, flags=re.MULTILINE)
    return text


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two receivers, and what stands before them."""

    a: Receiver
    b: Receiver
    proxy: HAProxy

    def received(self) -> list[queries.InstanceRow]:
        return [*self.a.received(), *self.b.received()]


@contextmanager
def cluster(folder: Path, *changes: tuple[str, str], **listen: Any) -> Iterator[Cluster]:
    need("haproxy")
    receivers = [Receiver(folder / name, free_port(), listen) for name in ("a", "b")]
    with ExitStack() as stack:
        for receiver in receivers:
            receiver.start()
            stack.callback(receiver.stop)
        for receiver in receivers:
            receiver.wait_ready()
        a, b = receivers
        proxy = stack.enter_context(HAProxy(folder, (a.port, b.port), *changes))
        yield Cluster(a, b, proxy)


def instance(number: int) -> tuple[str, bytes]:
    dataset = builders.radiograph(number)
    return str(dataset.SOPInstanceUID), wire.data_set_of(builders.part10(dataset))


def test_the_receivers_know_the_peers_behind_it(tmp_path: Path) -> None:
    """Echo and store of DCMTK, and of a modality with a rule of its own; both receivers get some."""
    need("echoscu", "storescu")
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(builders.radiograph(99)))
    peers = [
        {"ae_title": "XR1", "hosts": [XR1]},
        {"ae_title": "DCMTK", "hosts": ["127.0.0.1"]},
        {"ae_title": "HAPROXY", "hosts": ["127.0.0.1"]},
    ]
    with cluster(tmp_path, **BEHIND, peers=peers) as node:
        there = ("-aet", "DCMTK", "-aec", "CXR_NODE", "127.0.0.1", node.proxy.port)
        for done in (run("echoscu", *there), run("storescu", *there, file)):
            assert done.returncode == 0, done.stderr
        for number in range(1, 5):
            with Wire(node.proxy.port, from_host=XR1) as peer:
                assert peer.associate(calling="XR1")[0] == ASSOCIATE_AC
                assert peer.store(*instance(number)) == 0x0000
        with Wire(node.proxy.port, from_host=XR2) as peer:
            assert peer.associate(calling="XR1")[0] == ASSOCIATE_RJ
        rows = node.received()
    assert sorted((row.calling_ae_title, row.peer_host) for row in rows) == [
        ("DCMTK", "127.0.0.1"),
        *[("XR1", XR1)] * 4,
    ]
    assert node.a.received() and node.b.received()
    said = node.a.said() + node.b.said()
    assert f"refused peer={XR2} ae='XR1' cause=host" in said
    assert "peer=127.0.0.1" not in re.sub(r"stored .*", "", said), "its checks are served without a line"


WITHOUT = (CHECKED_BY_ECHO, "    default-server check inter 2s fastinter 500ms fall 2 rise 2\n    # With")


@pytest.mark.parametrize("names_peers", [True, False], ids=["with", "without"])
def test_one_silent_peer_does_not_shut_others_out(tmp_path: Path, names_peers: bool) -> None:
    """It takes all that it gets: associations on which nothing comes, and connections. Without the header it gets all.

    What the protocol is for stands in the second run, which would pass as well if the first proved nothing.
    """
    listen = {"max_associations": 8, "max_associations_per_host": 2, **(BEHIND if names_peers else {})}
    changes = () if names_peers else (WITHOUT,)
    with cluster(tmp_path, *changes, **listen) as node, ExitStack() as stack:
        got = [_opened(stack, node.proxy.port) for _ in range(8)]
        assert got.count(ASSOCIATE_AC) == 4  # two of each receiver
        for _ in range(30):
            with suppress(OSError):
                stack.enter_context(Wire(node.proxy.port, from_host=XR1))
        assert _is_heard(node.proxy.port, XR2) is names_peers
        if names_peers:
            assert node.proxy.is_ready(), "nor HAProxy's own checks"


def _opened(stack: ExitStack, port: int) -> int:
    peer = stack.enter_context(Wire(port, from_host=XR1))
    with suppress(OSError):
        return peer.associate()[0]
    return 0


def _is_heard(port: int, host: str) -> bool:
    with suppress(OSError), Wire(port, from_host=host) as peer:
        return peer.associate()[0] == ASSOCIATE_AC and peer.echo() == 0x0000
    return False


class Sender:
    """Sends one image after the other, each on an association of its own; what fails is tried once more, later."""

    def __init__(self, port: int) -> None:
        self.acknowledged, self.second_tries, self.failed = list[str](), 0, list[str]()
        self._port, self._over = port, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in range(1, 100_000):
            if self._over.is_set():
                return
            self._send(number)
            self._over.wait(0.05)

    def _send(self, number: int) -> None:
        uid, data_set = instance(number)
        if not self._try(uid, data_set):
            self.second_tries += 1
            time.sleep(SECOND_TRY_S)
            if not self._try(uid, data_set):
                self.failed.append(uid)
                return
        self.acknowledged.append(uid)

    def _try(self, uid: str, data_set: bytes) -> bool:
        try:
            with Wire(self._port, from_host=XR1) as peer:
                return peer.associate()[0] == ASSOCIATE_AC and peer.store(uid, data_set) == 0x0000
        except OSError:
            return False

    def sends(self, more: int = 20) -> None:
        """Wait until so many more were acknowledged."""
        goal = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= goal or self.failed, f"{goal} images were sent")
        assert not self.failed

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)


def test_a_receiver_dies_and_another_drains_and_no_sender_is_failed(tmp_path: Path) -> None:
    with cluster(tmp_path, **BEHIND, drain_s=8) as node, Sender(node.proxy.port) as sender:
        sender.sends()
        node.a.kill()
        wait_until(lambda: node.proxy.state("a") == "DOWN", "HAProxy sees that a is dead")
        sender.sends()
        node.a.start()
        node.a.wait_ready()
        wait_until(node.proxy.is_ready, "HAProxy sees that a lives")
        node.b.process.send_signal(signal.SIGTERM)
        wait_until(lambda: node.proxy.state("b") == "DOWN", "HAProxy sees that b drains")
        assert node.b.lives(), "before it ended"
        sender.sends()
        assert node.b.process.wait(60) == 0
        sender.sends()
    received = {row.sop_instance_uid for row in node.received()}
    print(f"{len(sender.acknowledged)} images, {sender.second_tries} of them at the second try")
    assert set(sender.acknowledged) <= received
    assert "cause=draining" in node.b.said()


def test_tls_passes_through(tmp_path: Path) -> None:
    """The certificate that the node judges is the modality's; HAProxy shows one of its own only to check."""
    need("echoscu")
    ca = Authority(tmp_path)
    check, modality = ca.issue("check"), ca.issue("xr1", hosts=["xr1.example.org"])
    (tmp_path / "check.pem").write_bytes(check.certificate.read_bytes() + check.key.read_bytes())
    peers = [
        {"ae_title": "DCMTK", "certificate": ["xr1.example.org"]},
        {"ae_title": "HAPROXY", "certificate": [check.fingerprint]},
    ]
    listen = {"proxy_protocol": ["127.0.0.1"], "tls": ca.issue("node").tls(), "peers": peers}
    changes = (
        (CHECKED_BY_ECHO, "    # With"),
        (
            "    #default-server send-proxy-v2 check check-send-proxy",
            "    default-server send-proxy-v2 check check-send-proxy",
        ),
        ("/etc/haproxy/check.pem", str(tmp_path / "check.pem")),
        ("/etc/haproxy/ca.pem", str(ca.pem)),
    )
    with cluster(tmp_path, *changes, **listen) as node:
        there = ("-aet", "DCMTK", "-aec", "CXR_NODE", "127.0.0.1", node.proxy.port)
        for identity, is_let_in in ((modality, True), (ca.issue("other"), False)):
            files = ("+tls", identity.key, identity.certificate, "+cf", identity.ca)
            assert (run("echoscu", *files, *there).returncode == 0) is is_let_in
        assert run("echoscu", *there).returncode != 0


def asking_the_page(text: str) -> str:
    """The other check of the file: its lines in the place of those of tcp-check."""
    text = re.sub(r"^ +(option tcp-check|tcp-check .*)\n", "", text, flags=re.MULTILINE)
    changes = (
        (CHECKED_BY_ECHO, "    # With"),
        ("    #option httpchk", "    option httpchk"),
        ("    #http-check send", "    http-check send"),
        ("    #default-server send-proxy-v2 check port", "    default-server send-proxy-v2 check port"),
    )
    return substituted(text, *changes)


def test_a_page_takes_a_receiver_out_that_drains(tmp_path: Path) -> None:
    """503 comes before the listener closes: HAProxy sees it while associations still go on."""
    pages = [free_port(), free_port()]
    with ExitStack() as stack:
        receivers = [
            Receiver(tmp_path / name, free_port(), {**BEHIND, "drain_s": 60}, web={"port": page})
            for name, page in zip(("a", "b"), pages, strict=True)
        ]
        for receiver, page in zip(receivers, pages, strict=True):
            stack.enter_context(receiver)
            web = Program(receiver.folder, *cxr_node("web", receiver.config), name="web")
            stack.enter_context(web)
            wait_until(lambda page=page: answers(page), "the page answers")  # type: ignore[misc]
        a, b = receivers
        proxy = stack.enter_context(HAProxy(tmp_path, (a.port, b.port), pages=pages))
        a.terminate()
        wait_until(lambda: proxy.state("a") == "DOWN", "HAProxy is told that a drains")
        assert a.lives() and answers(a.port) and proxy.state("b") == "UP"
        for number in range(1, 4):
            with Wire(proxy.port, from_host=XR1) as peer:
                assert peer.associate()[0] == ASSOCIATE_AC
                assert peer.store(*instance(number)) == 0x0000
        assert len(b.received()) == 3
        a.terminate()
        assert a.process.wait(30) == 0
