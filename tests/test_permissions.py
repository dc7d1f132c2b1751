"""What others on the machine may read or change stops the node, or is closed; always with the command that mends it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cxr_node import resources
from cxr_node.config import loader, permissions
from cxr_node.config.network import Tls
from cxr_node.diagnose import check
from cxr_node.errors import ConfigError
from cxr_node.node.network.association import client_tls
from cxr_node.node.network.tls import server_tls
from cxr_node.node.spool.spool import OWN_NAMES, Spool


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, bits: int) -> None:
    key = tmp_path / "node.key"
    key.write_text("")
    key.chmod(bits)
    tls = Tls(certificate=tmp_path / "node.pem", key=key, ca=tmp_path / "ca.pem")
    for use in (server_tls, client_tls):
        with pytest.raises(ConfigError, match=f"mode {bits:04o}.*; chmod 0600 {key}"):
            use(tls)


@pytest.mark.parametrize("bits", [0o600, 0o400])
def test_a_private_key_of_one_s_own_is_taken(tmp_path: Path, bits: int) -> None:
    key = tmp_path / "node.key"
    key.write_text("")
    key.chmod(bits)
    assert permissions.private_key(key) == key
    assert permissions.private_key(tmp_path / "missing.key").name == "missing.key"  # its reader tells


def test_a_configuration_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(f"spool: {{path: {tmp_path / 'spool'}}}\n")
    file.chmod(0o646)
    with pytest.raises(ConfigError, match=f"may change it .mode 0646.; chmod o-w {file}"):
        loader.load(file)
    file.chmod(0o664)
    assert loader.load(file).spool.path == tmp_path / "spool"


@pytest.mark.parametrize("bits", [0o755, 0o1777, 0o750])
def test_an_open_spool_is_closed_at_start(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(bits)
    (path / "lost+found").mkdir()  # a disk of its own
    Spool(path)
    assert mode(path) == 0o700
    path.chmod(bits)  # now it holds the node's own folders
    Spool(path)
    assert [mode(folder) for folder in (path, *(path / name for name in OWN_NAMES))] == [0o700] * 7


def test_somebody_else_s_folder_is_not_closed_but_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "home").mkdir()
    with pytest.raises(ConfigError, match=r"mode 0755.*a folder of its own, or chmod 0700"):
        Spool(tmp_path)
    assert mode(tmp_path) == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


def test_a_spool_of_another_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(_: Path, __: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", not_permitted)
    with pytest.raises(ConfigError, match="belongs to another account; chown"):
        Spool(tmp_path)


def test_check_says_who_may_do_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, spool = tmp_path / "node.key", tmp_path / "spool"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    key.chmod(0o644)
    spool.mkdir(mode=0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    tls = {"certificate": "node.pem", "key": str(key), "ca": "ca.pem"}
    settings = loader.parse(
        {"spool": {"path": str(spool), "min_free_mib": 256}, "listen": {"port": 0, "host": "0.0.0.0", "tls": tls}}
    )
    lines = list(check.check(settings, "node.yaml"))
    found = {line.subject: line for line in lines}
    assert not found["private keys"].ok
    assert f"chmod 0600 {key}" in found["private keys"].figure
    assert "open to others now" in found["spool"].figure
    key.chmod(0o600)
    assert {line.subject: line for line in check.check(settings, "")}["private keys"].ok
    warnings = [line.figure for line in lines if line.warning]
    assert all(line.ok for line in lines if line.warning)
    assert any("may change the weights" in sentence for sentence in warnings) == os.access(
        resources.profile_folder("pneumonia-pediatric"), os.W_OK
    )
