"""What the machines of a node share, each on a host of its own: two database servers, and HAProxy before the receivers.

The replica is synchronous: what the primary says it has committed, the replica has on its disk.
"""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from tests import postgres
from tests.chaos.network import Host, Network
from tests.chaos.node import PAGE_PORT
from tests.node.certificates import Authority
from tests.pacs.peers import need
from tests.pacs.test_haproxy import SAMPLE, asking_the_page, substituted
from tests.patience import PATIENCE_S, wait_until
from tests.processes import Program

DATABASE = "cxr"
DICOM_PORT = 11112
_MARK = "cxr_node_cluster"
_METRICS_PORT = 8404


class Databases:
    """A primary and its replica; the second becomes the first when that is gone for good."""

    def __init__(self, network: Network, hosts: tuple[Host, Host], folders: tuple[Path, Path]) -> None:
        self._network, self.hosts = network, hosts
        self.primary, self.replica = (
            postgres.Server(folder, _MARK, "fsync=on", host=host.address, within=host.within)
            for folder, host in zip(folders, hosts, strict=True)
        )

    @property
    def url(self) -> str:
        """For a configuration: libpq takes the one that is the primary."""
        servers = "&".join(f"host={each.host}:{each.port}" for each in (self.primary, self.replica))
        return f"postgresql+psycopg://{postgres.ADMIN}@/{DATABASE}?{servers}&target_session_attrs=read-write"

    def start(self) -> None:
        """Make both; from then on the primary's commits wait for the replica."""
        postgres.initialise(self.primary.folder)
        with (self.primary.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host {what} all samenet scram-sha-256\n" for what in ("all", "replication"))
        self.primary.start()
        self._copy()
        self.replica.start()
        with postgres.past_the_node(self.primary.url()) as connection:
            connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
            connection.execute(sa.text("ALTER SYSTEM SET synchronous_standby_names = '*'"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        wait_until(self._is_synchronous, "the replica is synchronous", PATIENCE_S)

    def stop(self) -> None:
        """End both."""
        for server in (self.primary, self.replica):
            server.stop(signal.SIGQUIT)

    def restart(self, how: signal.Signals, away_s: float) -> None:
        """Let the primary be away; SIGINT ends it in order, SIGQUIT as a crash does."""
        self.primary.stop(how)
        time.sleep(away_s)
        self.primary.start()

    def promote(self) -> None:
        """Lose the primary's host, and make the replica what it was."""
        lost, self.primary = self.primary, self.replica
        self._network.unplug(self.hosts[0])
        program = postgres.programs()
        assert program is not None
        asked = [program / "pg_ctl", "promote", "-w", "-D", self.primary.folder / "data"]
        with (self.primary.folder / "log").open("ab") as log:
            assert postgres.run(asked, log, self.hosts[1].within).wait(PATIENCE_S) == 0
        self.replica = lost
        lost.stop(signal.SIGKILL)

    def _copy(self) -> None:
        program, copy = postgres.programs(), self.replica
        assert program is not None
        source = f"host={self.primary.host} port={self.primary.port} user={postgres.ADMIN}"
        asked = [program / "pg_basebackup", "-D", copy.folder / "data", "-d", source, "-R", "-c", "fast", "--no-sync"]
        with (copy.folder / "log").open("ab") as log:
            code = postgres.run(asked, log, self.hosts[1].within, PGPASSWORD=postgres.PASSWORD).wait(PATIENCE_S)
        assert code == 0, (copy.folder / "log").read_text()

    def _is_synchronous(self) -> bool:
        with postgres.past_the_node(self.primary.url()) as connection:
            return bool(connection.scalar(sa.text("SELECT sync_state FROM pg_stat_replication")) == "sync")


@contextmanager
def databases(network: Network) -> Iterator[Databases]:
    """Both for the block."""
    with postgres.new_folder() as one, postgres.new_folder() as other:
        made = Databases(network, (network.host("db1"), network.host("db2")), (one, other))
        try:
            made.start()
            yield made
        finally:
            made.stop()


class Balancer(Program):
    """deploy/haproxy.cfg before the receivers: it asks each machine's page whether its receiver can store."""

    def __init__(self, folder: Path, host: Host, machines: Sequence[Host]) -> None:
        need("haproxy")
        self.host = host
        folder.mkdir(parents=True)
        page = Authority(folder, "page-ca").issue("page")
        (folder / "page.pem").write_bytes(page.certificate.read_bytes() + page.key.read_bytes())
        receivers, pages = (_servers(machines, port) for port in (DICOM_PORT, PAGE_PORT))
        file = folder / "haproxy.cfg"
        changes = (
            ("bind 127.0.0.1:8404", f"bind {host.address}:{_METRICS_PORT}"),
            ("/etc/haproxy/page.pem", str(folder / "page.pem")),
            ("server a 10.0.0.11:11112\n    server b 10.0.0.12:11112", receivers),
            ("server a 10.0.0.11:8042\n    server b 10.0.0.12:8042 backup", pages),
        )
        file.write_text(substituted(asking_the_page(SAMPLE.read_text()), *changes))
        super().__init__(folder, *host.within, "haproxy", "-db", "-f", file, name="haproxy")
        self._machines = machines

    def state(self, machine: Host) -> str:
        """Of a machine's receiver, as HAProxy's own figures have it."""
        line = rf'^haproxy_server_status{{proxy="receivers",server="{machine.cable}",state="(\w+)"}} 1$'
        found = re.search(line, self._figures(), re.MULTILINE)
        assert found is not None
        return found[1]

    def _figures(self) -> str:
        time.sleep(0.2)  # who waits for a state need not ask fifty times a second
        with urllib.request.urlopen(f"http://{self.host.address}:{_METRICS_PORT}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def is_ready(self) -> bool:
        with suppress(OSError):
            return all(self.state(each) == "UP" for each in self._machines)
        return False


def _servers(machines: Sequence[Host], port: int) -> str:
    return "\n    ".join(f"server {each.cable} {each.address}:{port}" for each in machines)
