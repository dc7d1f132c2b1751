"""Machines without hardware: hosts in network namespaces of their own, each with a cable to one switch.

The process of the tests has a cable too. Needs root, and a kernel that lets it make namespaces.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from tests import steady_network

_NOBODY = "02:00:00:00:00:01"
"""A MAC address that no host has: what is sent there is lost without a word."""
_NAME = re.compile(r"cxr-(\d+)-[0-9a-f]+-\w+")
_FIRST, _LAST = 2, 254


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with an address."""

    namespace: str
    address: str
    cable: str
    """Its end at the switch."""

    @property
    def within(self) -> tuple[str, ...]:
        """Before a command: it runs on this host. It is exec'd, so its process has the number of ours."""
        return ("ip", "netns", "exec", self.namespace)


class Network:
    """The switch. RFC 2544 keeps 198.18.0.0/15 for such networks, and nobody routes it."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self._name, self._our_end = f"cxr-{os.getpid()}-{mark}", f"cxr{mark}"
        self._switch = f"{self._name}-switch"
        self._net = _free_net()
        self._namespaces: list[str] = []
        self.address = f"{self._net}.1"
        """Of the process of the tests."""

    def open(self) -> None:
        """Build the switch, and plug ourselves in."""
        self._add(self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        self._plug_in("ours", str(os.getpid()), self._our_end)
        _ip("addr", "add", f"{self.address}/24", "dev", self._our_end)
        _ip("link", "set", self._our_end, "up")

    def close(self) -> None:
        """Take everything away; what still runs there loses its cable."""
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._our_end)
        for namespace in self._namespaces:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)

    def host(self, name: str) -> Host:
        """Add a host."""
        namespace, number = f"{self._name}-{name}", len(self._namespaces) + _FIRST - 1
        self._add(namespace)
        made = Host(namespace, f"{self._net}.{number}", f"to-{name}")
        self._plug_in(made.cable, namespace, "eth0")
        _ip("-n", namespace, "addr", "add", f"{made.address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return made

    def unplug(self, host: Host) -> None:
        """Pull its cable: nothing is refused or ended, nothing comes through."""
        _ip("-n", self._switch, "link", "set", host.cable, "down")

    def plug(self, host: Host) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", host.cable, "up")

    @contextmanager
    def cut(self, one: Host, others: tuple[Host, ...]) -> Iterator[None]:
        """Lose every packet between one host and some others, both ways; all else it reaches."""
        pairs = [(one, other) for other in others] + [(other, one) for other in others]
        for here, there in pairs:
            wrong = (there.address, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            _ip("-n", here.namespace, "neigh", "replace", *wrong)
        try:
            yield
        finally:
            for here, there in pairs:
                _ip("-n", here.namespace, "neigh", "del", there.address, "dev", "eth0")

    def _add(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")

    def _plug_in(self, cable: str, namespace: str, end: str) -> None:
        _ip("-n", self._switch, "link", "add", cable, "type", "veth", "peer", "name", end, "netns", namespace)
        _ip("-n", self._switch, "link", "set", cable, "master", "switch")
        _ip("-n", self._switch, "link", "set", cable, "up")


@contextmanager
def network() -> Iterator[Network]:
    """A network of its own for the block; skips where there can be none."""
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed: apt-get install iproute2")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root may make network namespaces; run this test as root")
    _sweep()
    made = Network()
    try:
        try:
            with steady_network.changing():
                made.open()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"NOT TESTED: no network namespaces here ({error.stderr.strip()})")
        yield made
    finally:
        with steady_network.changing():
            made.close()


def _sweep() -> None:
    """Delete what runs that were killed have left."""
    for line in _ip("netns", "list").splitlines():
        found = _NAME.match(line)
        if found and not psutil.pid_exists(int(found[1])):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", found[0])


def _free_net() -> str:
    used = {each.address for of in psutil.net_if_addrs().values() for each in of}
    while True:
        net = f"198.18.{random.randrange(256)}"
        if not any(address.startswith(f"{net}.") for address in used):
            return net


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
