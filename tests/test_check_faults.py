"""`check` tells whose fault it is: 78 for the file and what it names, 1 for the world; and a missing key is not ok."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pynetdicom import AE
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.config.network import Address
from cxr_node.node.priors.retrieve import FIND, GET
from cxr_node.node.process.supervisor import Presence
from cxr_node.tools.trial_node import Recorder
from tests.node import origin_servers, peers
from tests.node.origin_servers import Origin

RUNNER = CliRunner()
RADIOGRAPHY, VERIFICATION = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.1"
GONE = {"name": "gone", "address": "GONE@127.0.0.1:1"}


@pytest.fixture
def there(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with Recorder(tmp_path / "pacs") as pacs:
        yield {"name": "there", "address": str(pacs.address)}


@contextmanager
def archive() -> Iterator[Address]:
    """An archive that takes queries, and sends what it is asked for on the same association."""
    entity = AE("PACS")
    for sop_class_uid in (VERIFICATION, FIND, GET):
        entity.add_supported_context(sop_class_uid)
    entity.add_supported_context(RADIOGRAPHY, scu_role=False, scp_role=True)
    with peers.serving(entity) as address:
        yield address


def checked(folder: Path, **sections: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    file = folder / "node.yaml"
    content = {"spool": {"path": str(folder / "spool"), "min_free_mib": 1}, "listen": {"port": 0}}
    file.write_text(yaml.safe_dump(content | sections))
    shown = RUNNER.invoke(app, ["check", "--json", "-c", str(file)])
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    return shown.exit_code, {line["subject"]: line for line in lines if not line["ok"]}


def test_an_archive_that_is_down_and_a_port_in_use_are_the_world_s(tmp_path: Path, there: dict[str, Any]) -> None:
    assert checked(tmp_path, destinations=[there]) == (0, {})
    code, failed = checked(tmp_path, destinations=[there, GONE])
    assert (code, [line["fault"] for line in failed.values()]) == (1, ["world"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(0.1)
        listen = {"port": taken.getsockname()[1]}
        code, failed = checked(tmp_path, destinations=[there], listen=listen)
    assert (code, list(failed), failed["port"]["fault"]) == (1, ["port"], "world")
    code, failed = checked(
        tmp_path, destinations=[there], spool={"path": str(tmp_path / "spool"), "min_free_mib": 10**9}
    )
    assert (code, failed["spool"]["fault"]) == (1, "world")


def test_a_receiver_behind_a_load_balancer_is_known_by_its_sign_of_life(tmp_path: Path, there: dict[str, Any]) -> None:
    """It would not hear an association that begins without a header."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = {"port": taken.getsockname()[1], "proxy_protocol": ["127.0.0.1"], "allow_plaintext": True}
        code, failed = checked(tmp_path, listen=listen, destinations=[there])
        assert (code, "port" in failed) == (1, True)
        with Presence(tmp_path / "spool", "receive") as present:
            present.ready()
            code, failed = checked(tmp_path, listen=listen, destinations=[there])
        assert (code, "port" in failed) == (0, False)


def test_what_stands_in_the_file_is_78_even_if_the_world_is_wrong_too(tmp_path: Path) -> None:
    code, failed = checked(tmp_path, destinations=[GONE], model={"profile": "nonesuch"})
    assert (code, failed["weights"]["fault"], failed["destination gone"]["fault"]) == (78, "file", "world")
    code, failed = checked(tmp_path, destinations=[GONE], listen={"host": "192.0.2.1", "allow_plaintext": True})
    assert (code, failed["port"]["fault"]) == (78, "file")
    assert checked(tmp_path, destinations=[])[0] == 78


@pytest.mark.parametrize("where", ["collector", "destination", "listener"])
@pytest.mark.parametrize("content", [None, b"", b"no key\n"])
def test_a_private_key_that_is_none_is_not_ok(
    tmp_path: Path, there: dict[str, Any], where: str, content: bytes | None
) -> None:
    key = tmp_path / "node.key"
    if content is not None:
        key.write_bytes(content)
        key.chmod(0o600)
    tls = {"certificate": str(tmp_path / "c"), "key": str(key), "ca": str(tmp_path / "a")}
    sections: dict[str, dict[str, Any]] = {
        "collector": {"audit": {"syslog": {"host": "127.0.0.1", "port": 1, "tls": tls}}, "destinations": [there]},
        "destination": {"destinations": [there | {"tls": tls}]},
        "listener": {"listen": {"port": 0, "tls": tls}, "destinations": [there]},
    }
    code, failed = checked(tmp_path, **sections[where])
    assert code == 78
    assert str(key) in failed["private keys"]["sentence"]
    words = "no such file or directory" if content is None else "holds no private key"
    assert words in failed["private keys"]["sentence"]


def test_a_credential_that_does_not_exist_is_not_ok(
    tmp_path: Path, there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    tls = {"certificate": "c", "key": "credential:tls.key", "ca": "a"}
    code, failed = checked(tmp_path, destinations=[there | {"tls": tls}])
    assert code == 78
    assert "no such file" in failed["private keys"]["sentence"]


@pytest.mark.parametrize(
    ("mode", "text", "sentence", "code"),
    [
        (0o600, "mine", "", 0),
        (0o600, "another", "HTTP 401: it does not accept our authentication", 1),
        (0o644, "mine", "others may read this secret (mode 0644)", 78),
        (0o600, None, "no such file or directory", 78),
        (0o600, " ", "is empty", 78),
    ],
)
def test_a_dicomweb_server_and_what_it_is_shown(
    tmp_path: Path, mode: int, text: str | None, sentence: str, code: int
) -> None:
    token = tmp_path / "token"
    if text is not None:
        token.write_text(text)
        token.chmod(mode)
    origin = Origin(let_in=lambda asked: asked.headers.get("authorization") == "Bearer mine")
    with origin_servers.serving(origin) as url:
        cloud = {"kind": "dicomweb", "name": "cloud", "url": url, "authentication": {"token": str(token)}}
        found, failed = checked(tmp_path, destinations=[cloud])
    assert found == code
    assert sentence in " ".join(line["sentence"] for line in failed.values())
    assert "mine" not in str(failed)


def test_a_source_of_priors_that_takes_no_queries_is_the_world_s(tmp_path: Path, there: dict[str, Any]) -> None:
    code, failed = checked(tmp_path, destinations=[there], priors={"from": "there"})
    assert (code, list(failed), failed["priors"]["fault"]) == (1, ["priors"], "world")
    assert "takes no C-FIND" in failed["priors"]["sentence"]
    with archive() as address:
        asked = {"name": "asked", "address": str(address)}
        assert checked(tmp_path, destinations=[asked], priors={"from": "asked"}) == (0, {})
