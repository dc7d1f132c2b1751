"""The node under test: `cxr-node receive`, `work` and `deliver` as real processes, kept alive as systemd keeps them.

Unlike `serve` it starts a dead role again at once, so that fifty kills take minutes; and it can start a role
under another clock, on a short leash, or with a place in the code at which it dies.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from cxr_node.config.network import Address
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState, PromiseState
from cxr_node.node.process.supervisor import EXIT_CONFIG
from tests.chaos.archive import Archive
from tests.patience import wait_until
from tests.processes import Program, answers, configured, cxr_node, free_port

ROLES = ("receive", "work", "deliver")
"""In the order of their stop."""
AE_TITLE = "CXR_NODE"
LEASE_S = 10
PAGE_PORT = 8042
_RESTART_S = 0.2
_LOOK_S = 0.05


class Services:
    """Context manager: the roles of one machine; one that dies is started again. Each writes `<folder>/<role>.log`."""

    def __init__(
        self, folder: Path, config: Path, address: Address, roles: Sequence[str] = ROLES, within: Sequence[str] = ()
    ) -> None:
        """`within` is a command that runs another: of a machine of its own (`tests.chaos.network`)."""
        self.folder, self.spool, self.config, self.address, self.roles = (
            folder,
            folder / "spool",
            config,
            address,
            roles,
        )
        self.restarts: Counter[str] = Counter()
        """How often a role that ended by itself or by a kill was started again."""
        self.running: dict[str, Program] = {}
        self.deaths: list[tuple[str, int]] = []
        """Roles that ended without being asked to, and how."""
        self._within = within
        self._answering: dict[str, int] = {}
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper")
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.begin()
        try:
            self.wait_ready()
        except BaseException:
            self.give_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.shut_down()
        else:
            self.give_up()

    def begin(self) -> None:
        """Start every role, and keep it alive from now on."""
        for role in self.roles:
            self.start(role)
        self._keeper.start()

    def give_up(self) -> None:
        """Leave nothing behind, and show what the roles said last."""
        self.die()
        for role in self.roles:
            print(f"--- {self.folder.name} {role}\n{self.log(role)[-3000:]}")

    def die(self) -> None:
        """SIGKILL to all, for good."""
        self._done.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        while self.running:
            self.running.popitem()[1].kill()

    def shut_down(self) -> float:
        """Stop every role for good; how long it took."""
        self._done.set()
        self._keeper.join()
        return self.stop()

    def start(self, role: str) -> None:
        """Start one role."""
        with self._lock:
            command = [*self._within, *cxr_node(role, self.config, *self._stand_in(role))]
            self.running[role] = Program(self.folder, *command, name=role)
            self.running[role].start()

    def _stand_in(self, role: str) -> tuple[str, ...]:
        """Name the module, with its arguments, that runs a role instead of the package itself."""
        return ()

    def stop(self, *roles: str) -> float:
        """SIGTERM, role after role; how long it took. A role that is killed for being late fails the test."""
        began = time.monotonic()
        for role in roles or self.roles:
            with self._lock:
                program = self.running.pop(role, None)
            if program is not None:
                code = program.stop()
                assert code in (0, -signal.SIGTERM), f"{role} ended with {code}:\n{self.log(role)[-2000:]}"
        return time.monotonic() - began

    def kill(self, role: str) -> None:
        """SIGKILL; the keeper starts it again."""
        with self._lock:
            program = self.running[role]
        program.kill()

    def log(self, role: str) -> str:
        """All that a role has said."""
        path = self.folder / f"{role}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def pid(self, role: str) -> int | None:
        """Process of a role that lives and works at this moment."""
        with self._lock:
            program = self.running.get(role)
        if program is None or not program.lives():
            return None
        pid = program.process.pid
        port = {"receive": self.address.port, "web": PAGE_PORT}.get(role)
        if port is None:
            return pid if any((self.spool / "run").glob(f"{role}-{pid}-*.sock")) else None
        if pid != self._answering.get(role) and answers(port, self.address.host):
            self._answering[role] = pid  # asked only until then: a connection that closes at once keeps its place
        return pid if pid == self._answering.get(role) else None

    def wait_ready(self) -> None:
        """Wait until every role that was started works, but not for one that ends by itself."""
        wait_until(self._all_work, "the node starts")

    def _all_work(self) -> bool:
        ended = [role for role, code in self.deaths if code > 0]
        assert not ended, f"{ended[0]} ended:\n{self.log(ended[0])[-4000:]}"
        return all(self.pid(role) is not None for role in list(self.running))

    def _keep(self) -> None:
        """Start again what died, as `Restart=always` does."""
        while not self._done.wait(_LOOK_S):
            with self._lock:
                dead = [role for role, program in self.running.items() if not program.lives()]
            for role in dead:
                with self._lock:
                    code = self.running.pop(role).process.returncode
                    self.deaths.append((role, code))
                if code != EXIT_CONFIG and not self._done.wait(_RESTART_S):
                    self.restarts[role] += 1
                    self.start(role)


class Node(Services):
    """A node of one machine, on loopback."""

    def __init__(
        self,
        folder: Path,
        profile: Path,
        archives: Sequence[Archive],
        clock: Path | None = None,
        report_per: str = "image",
        **sections: dict[str, Any],
    ) -> None:
        address = Address(ae_title=AE_TITLE, host="127.0.0.1", port=free_port())
        content = settings(profile, archives, report_per) | sections
        super().__init__(folder, configured(folder, "node", address.port, **content), address)
        self._armed: dict[str, tuple[str, str, str]] = {}
        self._clock = clock  # a file that tells how many seconds the roles' wall clock is ahead
        self._ledger: Ledger | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.forget()

    def _stand_in(self, role: str) -> tuple[str, ...]:
        fail_point = self._armed.pop(role, None)
        if fail_point is not None:
            return ("tests.chaos.failing", *fail_point)
        return () if self._clock is None else ("tests.chaos.shifted", str(self._clock))

    def arm(self, role: str, place: str, when: str, nth: int) -> None:
        """Let the next process of a role kill itself at a place (see `crash_child.kill_at`)."""
        self._armed[role] = (place, when, str(nth))

    def counts(self) -> dict[InstanceState, int]:
        """Instances in each state."""
        self._ledger = self._ledger or Ledger.open(self.spool)
        return queries.counts(self._ledger)

    def uncommitted(self) -> dict[str, dict[PromiseState, int]]:
        """Accepted results that were not seen again, or that their destination did not commit itself to."""
        self._ledger = self._ledger or Ledger.open(self.spool)
        return queries.uncommitted(self._ledger)

    def is_idle(self) -> bool:
        """Nothing waits to be judged or delivered."""
        return not waiting(self.counts())

    def forget(self) -> None:
        """Give the ledger back: its file may go away or be another one from now on."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def usage(self, role: str) -> tuple[float, int, int]:
        """Resident memory in MiB, threads and open files of a role."""
        process = psutil.Process(self.running[role].process.pid)
        with process.oneshot():
            return process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()


def settings(profile: Path, archives: Sequence[Archive], report_per: str = "image") -> dict[str, Any]:
    """Sections of a configuration: weights, destinations, and short waits."""
    destinations = [
        {"name": f"archive{number}", "timeout_s": 5}
        | ({"report_per": report_per} if archive.gets_objects else {})
        | archive.configured
        for number, archive in enumerate(archives)
    ]
    quick = {"work": {"lease_s": LEASE_S}, "delivery": {"first_delay_s": 0.2, "max_delay_s": 1}}
    return quick | {"model": {"profile": str(profile)}, "destinations": destinations}


def waiting(counts: Mapping[InstanceState, int]) -> int:
    """How many instances wait to be judged or delivered."""
    return counts[InstanceState.RECEIVED] + counts[InstanceState.REPORTED]
