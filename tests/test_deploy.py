"""What deploy/ says fits together, and the node takes the configuration in it; no container is started here."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cxr_node.cli.node import app
from cxr_node.config import consistency, loader, strict_yaml
from cxr_node.config.schema import Config
from cxr_node.node.network.file_meta import IMPLEMENTATION_CLASS_UID
from cxr_node.node.network.verification import VERIFICATION

FOLDER = Path(__file__).parents[1] / "deploy"
HAPROXY = (FOLDER / "haproxy.cfg").read_text()
NODE_S = 90
"""`stop_grace_period` of what has something in hand, as TimeoutStopSec of the units."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = strict_yaml.load((FOLDER / "compose.yaml").read_text())
    return read


@pytest.fixture(scope="module")
def node(compose: dict[str, Any]) -> Config:
    return loader.parse(strict_yaml.load(compose["configs"]["node"]["content"]))


def address(service: dict[str, Any]) -> str:
    found: str = service["networks"]["node"]["ipv4_address"]
    return found


def test_every_service_runs_a_command_that_there_is_with_the_configuration(compose: dict[str, Any]) -> None:
    commands = set(typer.main.get_command(app).commands)
    ours = {name: one for name, one in compose["services"].items() if one["image"] == "cxr-node"}
    roles = {name: one["command"][0] for name, one in ours.items()}
    expected = {"receive-a": "receive", "receive-b": "receive", "work": "work", "deliver": "deliver", "web": "web"}
    assert roles == expected and set(roles.values()) <= commands
    assert ours["work"]["deploy"]["replicas"] == 2
    for name, one in ours.items():
        (mount,) = one["configs"]
        assert one["command"][1:] == ["--config", mount["target"]], name
        assert one["secrets"] == ["ledger.password"]
        assert name == "web" or one["stop_grace_period"] == f"{NODE_S}s"
    named = {volume.split(":")[0] for one in compose["services"].values() for volume in one.get("volumes", ())}
    assert {volume for volume in named if not volume.startswith("./")} == set(compose["volumes"])
    spools = [volume for one in ours.values() for volume in one["volumes"] if volume.endswith(":/var/lib/cxr-node")]
    assert len(spools) == len(ours) and len(set(spools)) == len(ours) - 1, (
        "the page shares that of the receiver beside it"
    )


def test_the_node_takes_its_configuration(compose: dict[str, Any], node: Config) -> None:
    assert node.web is not None and node.web.proxies == node.listen.proxy_protocol
    assert list(node.listen.proxy_protocol) == [address(compose["services"]["haproxy"])]
    assert node.listen.drain_s + 20 < NODE_S
    content = strict_yaml.load(compose["configs"]["node"]["content"])
    assert f"@{address(compose['services']['postgres'])}/" in content["ledger"]["url"]
    assert content["ledger"]["password"] == f"/run/secrets/{next(iter(compose['secrets']))}"
    assert all(sentence.startswith("listen.") for sentence in consistency.doubtful(node)), (
        "to try it out, in plain text"
    )


def test_the_image_is_made_of_what_is_there_and_of_no_secret(compose: dict[str, Any]) -> None:
    made = compose["x-node"]["build"]["dockerfile_inline"]
    copied = [place for line in re.findall(r"^COPY (.*) /src\S*$", made, re.MULTILINE) for place in line.split()]
    assert "cxr_node" in copied and "deploy" not in copied
    assert all((FOLDER.parent / place).exists() for place in copied)
    folders = re.search(r"install -d .* -o cxr-node (.*)$", made, re.MULTILINE)
    assert folders is not None
    mounts = {volume.split(":")[1] for one in compose["services"].values() for volume in one.get("volumes", ())}
    ours = {place for place in mounts if place.startswith(("/var/lib/cxr-node", "/srv"))}
    assert ours <= set(folders[1].split()), "a new volume belongs to whom its folder in the image belongs to"


def test_haproxy_finds_the_receivers_and_the_page(compose: dict[str, Any], node: Config) -> None:
    services = compose["services"]
    servers = dict(re.findall(r"^    server (\w) (\S+):11112$", HAPROXY, re.MULTILINE))
    assert servers == {"a": address(services["receive-a"]), "b": address(services["receive-b"])}
    (subnet,) = compose["networks"]["node"]["ipam"]["config"]
    fixed = [address(one) for one in services.values() if isinstance(one.get("networks"), dict)]
    assert len(set(fixed)) == len(fixed) == 4
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(subnet["subnet"]) for one in fixed)
    assert services["web"]["network_mode"] == "service:receive-a" and node.web is not None
    assert f"server a {servers['a']}:{node.web.port}\n" in HAPROXY
    published = {port.split(":")[1] for port in services["haproxy"]["ports"]}
    assert published == set(re.findall(r"^    bind :(\d+)", HAPROXY, re.MULTILINE)) == {str(node.listen.port), "443"}


def test_haproxy_s_check_is_an_association_with_this_node(node: Config) -> None:
    """Read as bytes: lengths fit, called is the node, and what is asked is Verification."""
    sent = re.findall(r'^    tcp-check send(-binary)? "?([^"\n]+)"?$', HAPROXY, re.MULTILINE)
    parts = [bytes.fromhex(content) if binary else content.encode() for binary, content in sent]
    request, echo, release = b"".join(parts[:4]), parts[4], parts[5]
    for pdu in (request, echo, release):
        assert int.from_bytes(pdu[2:6]) == len(pdu) - 6
    assert (request[0], echo[0], release[0]) == (1, 4, 5)
    assert request[10:42].decode() == node.listen.ae_title.ljust(16) + "HAPROXY".ljust(16)
    for uid in (VERIFICATION, IMPLEMENTATION_CLASS_UID):
        assert uid.encode() in request
    assert VERIFICATION.encode() in echo


def test_haproxy_waits_longer_than_the_node(node: Config) -> None:
    """The node ends who was silent for too long, and logs it; HAProxy would only hang up."""
    for side in ("client", "server"):
        (seconds,) = re.findall(rf"^    timeout {side} (\d+)s$", HAPROXY, re.MULTILINE)
        assert float(seconds) > 2 * node.listen.idle_timeout_s
