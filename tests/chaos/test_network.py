"""The network of the cluster's tests itself: what is unplugged or cut is so, and nothing of it is left behind."""

from __future__ import annotations

import subprocess
import sys

import psutil

from tests.chaos.network import Host, network
from tests.patience import wait_until
from tests.processes import answers

PORT = 11112
_LISTEN = f"import socket, sys; server = socket.create_server((sys.argv[1], {PORT})); input()"
_CONNECT = f"import socket, sys; socket.create_connection((sys.argv[1], {PORT}), 1)"


def test_what_is_cut_off_reaches_all_others() -> None:
    with network() as net:
        database, machine, other = (net.host(name) for name in ("db", "xr1", "xr2"))
        listening = [*database.within, sys.executable, "-c", _LISTEN, database.address]
        with subprocess.Popen(listening, stdin=subprocess.PIPE) as process:
            try:
                wait_until(lambda: answers(PORT, database.address), "it listens")
                assert _reaches(machine, database)
                with net.cut(machine, (database,)):
                    assert not _reaches(machine, database)
                    assert _reaches(other, database)
                    assert answers(PORT, database.address)
                assert _reaches(machine, database)
                net.unplug(database)
                assert not _reaches(other, database)
                net.plug(database)
                wait_until(lambda: _reaches(other, database), "it is back")
            finally:
                process.kill()
        ours = {each.address for of in psutil.net_if_addrs().values() for each in of}
        assert net.address in ours
    left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert database.namespace not in left
    assert net.address not in {each.address for of in psutil.net_if_addrs().values() for each in of}


def _reaches(one: Host, other: Host) -> bool:
    asked = [*one.within, sys.executable, "-c", _CONNECT, other.address]
    return subprocess.run(asked, check=False, stderr=subprocess.DEVNULL).returncode == 0
