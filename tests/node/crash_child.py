"""One role as a process that kills itself (SIGKILL) before or after a named call: for test_crash and tests/chaos."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from typing import Any

from cxr_node.config.schema import Config
from cxr_node.node.deliver import courier
from cxr_node.node.process import logs, supervisor
from cxr_node.node.work import worker
from tests.node import workplace


def kill_at(place: str, when: str, nth: int = 1) -> None:
    """Wrap the function of that name: at its nth call that does something the process dies."""
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    genuine, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(genuine)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        if when == "before" and next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        result = genuine(*arguments, **keywords)
        # an empty claim is no boundary
        if when == "after" and result is not None and next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapper)


def main(role: str, config: Config, place: str = "", when: str = "after") -> None:
    """Run `work` or `deliver`; PLACE is written `module:Class.method`."""
    logs.configure()
    if place:
        kill_at(place, when)
    stop = supervisor.stop_event()
    if role == "work":
        worker.run(config, workplace.analyser, stop)
    else:
        courier.run(config, stop)
