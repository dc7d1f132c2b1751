"""A node of several machines that is set up wrongly: the command line says it in one sentence, and exits with 78."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.node.ledger import machines
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.process.supervisor import Presence
from tests import postgres as servers
from tests.node import workplace
from tests.node.buckets import SECRET, Bucket, Moto
from tests.node.ledgers import digest
from tests.processes import free_port

pytestmark = pytest.mark.skipif(servers.programs() is None, reason=servers.HINT)

WORDS = "hunter2"
"""A wrong password."""


class Site:
    """The configuration of a machine, right in all but what a test makes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sections: dict[str, Any] = {
            "listen": {"port": free_port()},
            "spool": {"path": str(folder / "spool"), "min_free_mib": 1024},
            "audit": {"enabled": False},
            "destinations": [{"name": "pacs", "address": "PACS@127.0.0.1:1"}],
            "ledger": servers.section(folder),
        }

    def with_url(self, **changes: Any) -> None:
        """Change something in the ledger's URL."""
        self.sections["ledger"]["url"] = sa.make_url(self.sections["ledger"]["url"]).set(**changes).render_as_string()

    def file(self) -> Path:
        path = self.folder / "node.yaml"
        path.write_text(yaml.safe_dump(self.sections))
        path.chmod(0o600)
        return path

    def told(self, command: str, *, program: tuple[str, ...] = ("cxr_node",)) -> tuple[int, list[str]]:
        """Exit code of a process of its own, and what it wrote, its journal left out."""
        words = [sys.executable, "-m", *program, command, "--config", str(self.file())]
        shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        lines = sentences(shown.stdout + shown.stderr)
        assert lines, (shown.returncode, shown.stdout, shown.stderr)
        return shown.returncode, lines

    def checked(self) -> tuple[int, list[str]]:
        """What `check` says, in this process: it imports everything, which takes seconds."""
        shown = CliRunner().invoke(app, ["check", "--config", str(self.file())], terminal_width=1000)
        return shown.exit_code, sentences(shown.output)

    def refused(self, sentence: str) -> None:
        """Both the receiver and `check` say that sentence, and nothing else."""
        for code, lines in (self.told("receive"), self.checked()):
            assert (code, len(lines)) == (78, 1), (code, lines)
            assert sentence in lines[0], lines


def sentences(shown: str) -> list[str]:
    """What is said to the operator; no traceback, and no secret, is among all that was written."""
    assert "Traceback" not in shown, shown
    for secret in (WORDS, servers.PASSWORD, SECRET):
        assert secret not in shown.replace("\n", "")
    lines = [line for line in shown.splitlines() if line.startswith(("cxr-node: ", "FAIL "))]
    return [line for line in lines if not line.startswith("FAIL destination")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("db.example.org/cxr", "ledger.url: 'db.example.org/cxr' is no database that is known"),
        ("postgresql+psycopg://cxr@db:port/cxr", "ledger.url: is not a URL"),
        ("oracle://cxr@db/cxr", "ledger.url: 'oracle' is no database that is known"),
        ("postgresql+psycopg://cxr:hunter2@db/cxr", "ledger.url: holds a URL with a password"),
    ],
)
def test_a_url_that_is_none(site: Site, url: str, sentence: str) -> None:
    site.sections["ledger"]["url"] = url
    site.refused(sentence)


def test_a_host_that_nobody_knows(site: Site) -> None:
    site.with_url(host="db.invalid")
    site.refused("failed to resolve host 'db.invalid'")


def test_a_port_of_another_service(site: Site) -> None:
    with answering(b"H") as port:
        site.with_url(port=port)
        site.refused("received invalid response to SSL negotiation: H")


def test_a_port_at_which_nobody_listens_may_be_a_server_that_starts_a_minute_later(site: Site) -> None:
    """So the receiver waits and says so (`test_postgres`), and for `check` it is the world's fault."""
    site.with_url(port=free_port())
    code, lines = site.checked()
    assert (code, len(lines), "Connection refused" in lines[0]) == (1, 1, True), lines


def test_a_wrong_password(site: Site) -> None:
    Path(site.sections["ledger"]["password"]).write_text(f"{WORDS}\n")
    site.refused('password authentication failed for user "cxr"')


def test_an_account_that_does_not_exist(site: Site) -> None:
    site.with_url(username="nobody")
    site.refused('password authentication failed for user "nobody"')


def test_a_database_that_does_not_exist(site: Site) -> None:
    site.with_url(database="nowhere")
    site.refused('database "nowhere" does not exist')


def test_tables_of_a_newer_version(site: Site) -> None:
    config = workplace.config(site.folder / "spool", ledger=site.sections["ledger"])
    Ledger.of_node(config).close()
    with servers.past_the_node(site.sections["ledger"]["url"]) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '2001'"))
    site.refused("ledger: written by a newer version of cxr-node")


def test_a_bucket_that_is_not_there(site: Site, moto: Moto) -> None:
    bucket = Bucket(site.folder, moto)
    site.sections["spool"]["store"] = bucket.configured() | {"bucket": "nowhere"}
    site.refused(f"bucket nowhere at {moto.url}: there is no such bucket")


def test_a_share_that_is_not_mounted(site: Site) -> None:
    share = site.folder / "mnt" / "cxr"
    share.parent.mkdir()
    site.sections["spool"]["store"] = {"kind": "posix", "path": str(share)}
    site.refused("is not there; mount the share, or make the folder on it")
    assert not share.exists()


@pytest.mark.parametrize(("shift_s", "which"), [(310, "ahead of"), (-310, "behind")])
def test_a_clock_that_differs_by_five_minutes(site: Site, shift_s: float, which: str, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text(str(shift_s))
    code, lines = site.told("receive", program=("tests.chaos.shifted", str(offset)))
    assert (code, len(lines)) == (78, 1), (code, lines)
    assert f" s {which} the database's, more than 300; let NTP set both" in lines[0]


def test_two_nodes_of_one_installation_id_that_answer_otherwise(site: Site, tmp_path: Path) -> None:
    """The other one's worker runs, and has another profile, admission or results."""
    there = workplace.config(tmp_path / "there", ledger=site.sections["ledger"])
    with closing(Ledger.of_node(there)) as ledger, closing(Presence(there.spool.path, "work")) as present:
        present.ready()
        # it tells until the slowest start has come so far
        with (
            machines.alike(ledger, there, digest(1)),
            machines.telling(ledger, there.spool.path),
        ):
            code, lines = site.told("work")
    assert (code, len(lines)) == (78, 1), lines
    assert f"results.installation_id: cxr-node is also {ledger.database.machine}, which answers by another" in lines[0]


def test_serve_ends_with_the_same_sentence(site: Site) -> None:
    """Each of its processes says it."""
    Path(site.sections["ledger"]["password"]).write_text(f"{WORDS}\n")
    code, lines = site.told("serve")
    assert code == 78
    assert 1 <= len(lines) <= 3
    assert {'password authentication failed for user "cxr"' in line for line in lines} == {True}, lines


@contextmanager
def answering(word: bytes) -> Iterator[int]:
    """A service that says a word to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(word)
                        connection.recv(64)

        thread = threading.Thread(target=run)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
