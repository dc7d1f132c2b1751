"""The test of the tests: what one of them leaves behind is seen and named."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests import leftovers
from tests.leftovers import Lookout


def test_a_process_an_orphan_and_a_listening_socket_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_GOES_S", 0.2)
    lookout = Lookout()
    with socket.create_server(("127.0.0.1", 0)) as listener, subprocess.Popen(["sleep", "1234"]):
        subprocess.run(["sh", "-c", "sleep 1235 &"], check=True)
        left = "\n".join(lookout.left())  # and ended
        port = listener.getsockname()[1]
    assert "sleep 1234" in left
    assert "sleep 1235" in left
    assert f"listens at 127.0.0.1:{port}" in left
    assert lookout.left() == []
