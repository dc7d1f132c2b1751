"""The systemd units are well formed, hardened, and fit what the code does."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cxr_node.config import loader
from cxr_node.node.receive import server
from cxr_node.node.receive.listener import ARTIM_S

FOLDER = Path(__file__).parent.parent / "systemd"
ROLES = ("receive", "work", "deliver", "web")
MAX_EXPOSURE = {"receive": 1.5, "work": 2.0, "work@": 2.0, "deliver": 1.5, "web": 2.0}


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: install the package systemd")
    return program


def unit(role: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read(FOLDER / f"cxr-node-{role}.service")
    return parser


def test_verify_finds_nothing(systemd_analyze: str, tmp_path: Path) -> None:
    """The program is not installed where tests run; everything else is checked as it is."""
    for path in (*FOLDER.glob("*.service"), *FOLDER.glob("*.target")):
        text = path.read_text().replace("/opt/cxr-node/bin/cxr-node", shutil.which("true") or "/bin/true")
        (tmp_path / path.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 6
    done = subprocess.run([systemd_analyze, "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("role", MAX_EXPOSURE)
def test_exposure_is_low(systemd_analyze: str, role: str) -> None:
    command = [systemd_analyze, "security", "--offline=true", "--no-pager", str(FOLDER / f"cxr-node-{role}.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MAX_EXPOSURE[role]


@pytest.mark.parametrize("role", ROLES)
def test_units_are_started_by_the_target_and_watched(role: str) -> None:
    service = unit(role)["Service"]
    assert service["ExecStart"].split()[1:2] == [role]
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) >= 60
    assert service["RestartPreventExitStatus"] == "78"
    assert service["StateDirectory"] == "cxr-node"
    started = f"cxr-node-{role}.service" in (FOLDER / "cxr-node.target").read_text()
    assert started == (role != "web"), "the page is enabled by whoever configures it"
    assert unit(role)["Install"]["WantedBy"] == "cxr-node.target"
    assert unit(role)["Unit"]["PartOf"] == "cxr-node.target"


def test_memory_may_be_executable_only_where_kernels_are_compiled() -> None:
    """oneDNN writes its kernels at run time: under MemoryDenyWriteExecute a convolution fails (measured)."""
    for role in ("work", "web"):
        assert "MemoryDenyWriteExecute" not in unit(role)["Service"]
    for role in ("receive", "deliver"):
        assert unit(role)["Service"]["MemoryDenyWriteExecute"] == "yes"


def test_the_worker_has_no_network() -> None:
    service = unit("work")["Service"]
    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "AF_UNIX"


NETWORK = {
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "PrivateNetwork": None,
    "IPAddressDeny": None,
}
"""What a worker of several machines has, and that of one machine has not: its database is elsewhere."""


def test_a_worker_among_several_is_one_with_a_network() -> None:
    alone, among = dict(unit("work")["Service"]), dict(unit("work@")["Service"])
    assert {key: among.get(key) for key in alone | among if alone.get(key) != among.get(key)} == NETWORK
    assert unit("work@")["Unit"]["PartOf"] == unit("work@")["Install"]["WantedBy"] == "cxr-node.target"
    assert "%i" in unit("work@")["Unit"]["Description"]
    assert "cxr-node-work@" not in (FOLDER / "cxr-node.target").read_text(), "how many is for the operator to say"


def test_a_receiver_has_time_to_drain() -> None:
    longest = loader.parse({"spool": {"path": "x"}, "listen": {"drain_s": 60}}).listen.drain_s
    assert longest + server.GRACE_S + ARTIM_S < float(unit("receive")["Service"]["TimeoutStopSec"])


def test_a_send_in_hand_fits_into_the_time_to_stop() -> None:
    for role in ROLES:
        assert float(unit(role)["Service"]["TimeoutStopSec"]) <= 90
