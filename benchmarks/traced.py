"""A role of our node with the processor time of its parts counted: `python -m benchmarks.traced FILE ROLE ...`.

FILE is written ten times a second: milliseconds of each part since the start, and of the process. A part is what a
thread spends in some functions, less what it spends in another part within them. Threads that no part is in, and what
a library does in threads of its own, are left over.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVERY_S = 0.1
Parts = Mapping[str, tuple[str, ...]]
PARTS: Mapping[str, Parts] = {
    "receive": {
        "read from the socket": ("cxr_node.node.network.guarded_socket:GuardedSocket._fill",),
        "digest and write": ("cxr_node.node.receive.reception:Reception.write",),
        "walk through the encoding": ("cxr_node.dicom.read.header:inspect",),
        "sync": ("cxr_node.node.spool.part:Part.sync", "cxr_node.node.spool.disk:sync"),
        "ledger": ("cxr_node.node.ledger.ledger:Ledger.add",),
        "the rest of an answer": ("cxr_node.node.receive.receiver:Receiver.finish",),
    },
    "work": {
        "read": ("cxr_node.node.spool.spool:Spool.load", "cxr_node.node.spool.spool:Spool.read"),
        "digests of file and pixels": (
            "cxr_node.node.spool.spool:Spool.require_whole",
            "cxr_node.dicom.pixels.pixels:_digest",
        ),
        "header and decode": ("cxr_node.dicom.read.header:read", "cxr_node.pipeline:admit"),
        "resize and views": ("cxr_node.model.preprocess:prepare", "cxr_node.model.preprocess:views"),
        "network": ("cxr_node.model.openvino_runtime:OpenVINORuntime.infer",),
        "lungs, outline": ("cxr_node.model.predictor:ProfilePredictor.examine",),
        "reports and picture": ("cxr_node.pipeline:explain", "cxr_node.study_pipeline:report_study"),
        "our own check": ("cxr_node.dicom.verify.check:require_sound",),
        "compress": ("cxr_node.node.network.pictures:pack",),
        "store results": ("cxr_node.node.spool.spool:Spool.store_result",),
        "ledger": (
            "cxr_node.node.ledger.ledger:Ledger.claim_instance",
            "cxr_node.node.ledger.ledger:Ledger.settle_reported",
            "cxr_node.node.ledger.studies:claim_study",
        ),
    },
    "deliver": {
        "read": ("cxr_node.node.spool.spool:Spool.load",),
        "digest": ("cxr_node.node.spool.spool:Spool.require_whole",),
        "send": ("cxr_node.node.deliver.storage_scu:StorageScu.store",),
        "ledger": (
            "cxr_node.node.ledger.ledger:Ledger.claim_delivery",
            "cxr_node.node.ledger.ledger:Ledger.settle_delivered",
        ),
        "the rest of a delivery": ("cxr_node.node.deliver.courier:Courier.do_one",),
    },
}
REST = "threads, wake-ups and the rest"


class Clock:
    """Adds up what each part takes, by thread, exclusive of the parts within it."""

    def __init__(self) -> None:
        self._inside = threading.local()
        self._lock = threading.Lock()
        self._spent_ns: defaultdict[str, int] = defaultdict(int)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function."""

        @functools.wraps(function)
        def timed(*args: Any, **named: Any) -> Any:
            stack: list[int] = self._inside.__dict__.setdefault("stack", [])
            stack.append(0)
            began = time.thread_time_ns()
            try:
                return function(*args, **named)
            finally:
                took, within = time.thread_time_ns() - began, stack.pop()
                if stack:
                    stack[-1] += took
                with self._lock:
                    self._spent_ns[part] += took - within

        return timed

    def spent_ms(self) -> dict[str, float]:
        """Milliseconds of each part so far."""
        with self._lock:
            return {part: spent / 1e6 for part, spent in self._spent_ns.items()}


def install(clock: Clock, parts: Parts) -> None:
    """Put the clock round each function, before anybody else takes hold of it by name."""
    for part, places in parts.items():
        for place in places:
            module, _, path = place.partition(":")
            owner: Any = importlib.import_module(module)
            *outer, name = path.split(".")
            for each in outer:
                owner = getattr(owner, each)
            raw = owner.__dict__[name]
            timed = clock.timed(part, getattr(owner, name))
            setattr(owner, name, staticmethod(timed) if isinstance(raw, staticmethod) else timed)


def _tell(clock: Clock, file: Path) -> None:
    while True:
        told: dict[str, Any] = {
            "at_s": time.time(),
            "monotonic_ns": time.monotonic_ns(),
            "process_ms": 1000.0 * time.process_time(),
        }
        told |= {"parts_ms": clock.spent_ms()}
        part = file.with_suffix(".part")
        part.write_text(json.dumps(told), "utf-8")
        part.rename(file)
        time.sleep(EVERY_S)


def main() -> None:
    """Install, and run the role."""
    file, role = Path(sys.argv[1]), sys.argv[2]
    clock = Clock()
    install(clock, PARTS[role])
    threading.Thread(target=_tell, args=(clock, file), daemon=True).start()
    from cxr_node.cli.node import app

    sys.argv = ["cxr-node", *sys.argv[2:]]
    app()


if __name__ == "__main__":
    main()
