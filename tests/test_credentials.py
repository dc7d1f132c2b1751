"""Secrets come as files or systemd credentials; one that stands in node.yaml itself is refused and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cxr_node.config import loader, permissions, schema
from cxr_node.config.network import Tls
from cxr_node.errors import ConfigError
from cxr_node.node.network.association import client_tls
from cxr_node.node.network.tls import server_tls

PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIGVzY3JldA==\n-----END EC PRIVATE KEY-----\n"
FILES = {"certificate": "node.pem", "key": "node.key", "ca": "ca.pem"}


def load(folder: Path, **sections: object) -> schema.Config:
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(folder / "spool")}, **sections}))
    return loader.load(file)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"listen": {"tls": FILES | {"key": PEM}}}, "listen.tls.key"),
        ({"destinations": [{"name": "a", "address": "A@h:1", "tls": FILES | {"key": PEM}}]}, "destinations.a.tls.key"),
        ({"ledger": {"url": "postgresql://node:hunter2@db/ledger"}}, "ledger.url"),
        ({"results": {"manufacturer": "see https://me:hunter2@example.org/x"}}, "results.manufacturer"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_without_repeating_it(
    tmp_path: Path, sections: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, **sections)
    (mistake,) = raised.value.mistakes
    assert mistake.startswith(f"{tmp_path / 'node.yaml'}: {key}: holds a ")
    assert "hunter2" not in mistake
    assert "MHcC" not in mistake


def test_a_mistake_in_the_yaml_is_placed_without_repeating_the_lines_around_it(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("ledger:\n  password: hunter2 : hunter2\n")
    with pytest.raises(ConfigError, match=r"is not YAML: line 2: mapping values are not allowed here$"):
        loader.load(file)
    file.write_bytes(b"\xff\xfehunter2")
    with pytest.raises(ConfigError, match=r"it is not UTF-8$"):
        loader.load(file)


@pytest.mark.parametrize("text", ["https://example.org/path", "see http://[broken", "user@host:80", "a://b@c"])
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    assert list(permissions.exposed({"a": [text]})) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "../key", "with space"])
def test_a_name_of_no_credential_is_refused_by_its_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"listen\.tls\.key: credential:.* names no credential"):
        load(tmp_path, listen={"tls": FILES | {"key": f"credential:{name}"}})


def test_a_credential_is_found_where_systemd_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tls.key").write_text(PEM)
    (tmp_path / "tls.key").chmod(0o440)  # systemd's mode where an access control list lets the unit's user read
    monkeypatch.setenv(permissions.VARIABLE, str(tmp_path))
    tls = load(tmp_path, listen={"tls": FILES | {"key": "credential:tls.key"}}).listen.tls
    assert tls is not None
    assert tls.located() == Tls(certificate=Path("node.pem"), key=tmp_path / "tls.key", ca=Path("ca.pem"))


def test_credentials_that_a_unit_does_not_use_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker reads the same node.yaml and gets no key."""
    monkeypatch.delenv(permissions.VARIABLE, raising=False)
    assert load(tmp_path, listen={"tls": FILES | {"key": "credential:tls.key"}}).listen.tls is not None


@pytest.mark.parametrize("use", [server_tls, client_tls])
def test_a_missing_credential_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: object) -> None:
    assert callable(use)
    tls = Tls(certificate=Path("node.pem"), key=Path("credential:tls.key"), ca=Path("ca.pem"))
    monkeypatch.delenv(permissions.VARIABLE, raising=False)
    with pytest.raises(
        ConfigError, match=r"^credential:tls\.key: \$CREDENTIALS_DIRECTORY is not set; .*LoadCredential"
    ):
        use(tls)
    monkeypatch.setenv(permissions.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"^credential:tls\.key: no such file in .*LoadCredential=tls\.key:"):
        use(tls)
