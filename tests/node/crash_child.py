"""One role as a process that kills itself (SIGKILL) before or after a named call: for test_crash.

The processes are forked from one that has imported everything and runs no thread; so 30 of them cost seconds.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from typing import Any

from cxr_node.config import Config
from cxr_node.node import deliver, journal, service, work
from tests.node import workplace


def kill_at(place: str, when: str) -> None:
    """Wrap the function of that name."""
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    genuine = getattr(owner, name)

    @functools.wraps(genuine)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = genuine(*arguments, **keywords)
        if result is not None:  # an empty claim is no boundary
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapper)


def main(role: str, config: Config, place: str = "", when: str = "after") -> None:
    """Run `work` or `deliver`; PLACE is written `module:Class.method`."""
    journal.configure()
    if place:
        kill_at(place, when)
    stop = service.stop_event()
    if role == "work":
        work.run(config, object, workplace.judge, stop)
    else:
        deliver.run(config, stop)
