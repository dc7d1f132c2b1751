"""Run one role as a process that kills itself (SIGKILL) before or after a named call. Started by test_crash.

`python -m tests.node.crash_child ROLE CONFIG.json [PLACE before|after]`, PLACE as `module:Class.method`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from cxr_node import config as configuration
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


def main(role: str, config_path: str, place: str = "", when: str = "after") -> None:
    journal.configure()
    config = configuration.parse(json.loads(Path(config_path).read_text()))
    if place:
        kill_at(place, when)
    stop = service.stop_event()
    if role == "work":
        work.run(config, object, workplace.judge, stop)
    else:
        deliver.run(config, stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
