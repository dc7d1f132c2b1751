"""Programs that tests start: a start that fails says so at once, what they said is kept, none outlives its block."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TextIO

import yaml

from tests.patience import wait_until

STOP_S = 90.0
"""TimeoutStopSec of the units: what needs longer is killed, and fails the test."""
_PORTS = range(12000, 32768)
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "TCP_NODELAY": "1",  # DCMTK and Orthanc wait 40 ms per C-STORE without it
}
"""The package that is tested, whatever is installed."""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end."""
    words = [str(word) for word in command]
    environment = os.environ | _ENVIRONMENT
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def held(name: str, kind: int) -> Iterator[TextIO]:
    """A file that all test processes of this user have together, locked for the block: `kind` as of fcntl.flock."""
    with (Path(tempfile.gettempdir()) / f"cxr-node-test-{name}-{os.getuid()}").open("a+") as file:
        fcntl.flock(file, kind)
        yield file


def free_port() -> int:
    """A loopback port that nobody has, and that nobody else is given: neither another test nor a connection.

    The port that the kernel gives to bind(0) is one of those that it gives to connections: until a program listens
    there, any of them may have it. So they are dealt in turn from below that range, to all test processes together.
    """
    with held("ports", fcntl.LOCK_EX) as dealt:
        dealt.seek(0)
        port = int(dealt.read() or _PORTS[0])
        while True:
            port = port + 1 if port + 1 in _PORTS else _PORTS[0]
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                break  # nobody listens there
        dealt.truncate(0)
        dealt.write(str(port))
        return port


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody listens at a port, here at a loopback one."""
    with suppress(OSError):
        socket.create_connection((host, port), 1).close()
        return True
    return False


def descendants(pid: int) -> Iterator[int]:
    """Processes that a process has started, from any of its threads, and those that they have started."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def children(pid: int) -> list[int]:
    """Processes that a process has started, from any of its threads."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def words_of(pid: int) -> list[str]:
    """Command line of a process; none where it is dead."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    return []


class Program:
    """Context manager: started and ready, and at the end stopped; may be stopped and started in between."""

    running: ClassVar[set[Program]] = set()
    """Those within their blocks; a failure shows their logs (`conftest.py`)."""

    def __init__(self, folder: Path, *command: object, name: str = "", **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.command, self.environment = folder, [str(word) for word in command], environment
        self.log = folder / f"{name or Path(self.command[0]).name}.log"

    def start(self) -> None:
        """Start it, and wait for nothing."""
        environment = os.environ | _ENVIRONMENT | self.environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder
            )

    def is_ready(self) -> bool:
        """Tell whether it does what it is there for."""
        return True

    def wait_ready(self) -> None:
        """Wait until it is ready, but not for one that has ended."""
        wait_until(lambda: not self.lives() or self.is_ready(), f"{self.log.stem} is ready")
        assert self.lives(), f"{self.log.stem} ended with {self.process.returncode}:\n{self.said()[-4000:]}"

    def lives(self) -> bool:
        """Tell whether it is still the process that was started."""
        return self.process.poll() is None

    def said(self) -> str:
        """All of its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def stop(self) -> int:
        """SIGTERM, and patience as systemd has it; how it ended."""
        self.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        self.running.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running.discard(self)
        if kind is not None:
            print(f"--- {self.log}\n{self.said()[-6000:]}")
        if self.lives():
            self.stop()


def cxr_node(role: str, config: Path, *module: str) -> list[str]:
    """Command line of `cxr-node ROLE`, or of a program of the tests that stands for it."""
    return [sys.executable, "-m", *(module or ("cxr_node",)), role, "--config", str(config)]


def configured(folder: Path, name: str, port: int, **sections: Any) -> Path:
    """Write a configuration: a spool in the folder, a loopback port (0: the kernel chooses), and what else is given."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "listen": {"ae_title": "CXR_NODE", "host": "127.0.0.1", "port": port},
        "spool": {"path": str(folder / "spool"), "min_free_mib": 16},
        "model": {"threads": 1},
    }
    for section, values in sections.items():
        content[section] = content[section] | values if section in content else values
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    file.chmod(0o600)
    return file
