"""What the page needs other libraries for: done in a process of its own, which ends when it is done.

pydicom, numpy and what measures a machine would cost the page 100 MiB for good. One task of a kind at a time; the page
answers everybody else meanwhile.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from typing import Any

from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.errors import CxrNodeError, ResourceError
from cxr_node.result_kinds import ResultKind

TIMEOUT_S = 120.0


class Task(StrEnum):
    """What there is to do."""

    DOCTOR = "doctor"
    CONFORMANCE = "conformance"
    SHOW = "show"


_BUSY = {task: threading.Lock() for task in Task}
_PATIENCE_S = {Task.SHOW: 10.0, Task.CONFORMANCE: 10.0, Task.DOCTOR: 0.0}
"""So long a task waits for the one before it."""


def ask(task: Task, config: Config, **more: Any) -> Any:
    """Do a task, and return what JSON can say of it.

    Raises
    ------
    ResourceError : the same is being done for somebody else, or the process failed or took too long.
    """
    if not _BUSY[task].acquire(timeout=_PATIENCE_S[task]):
        raise ResourceError(f"{task} is running already; try again when it is done")
    try:
        content = {"task": task, "config": config.model_dump(mode="json", by_alias=True), "more": more}
        command = [sys.executable, "-m", "cxr_node.web.pages.aside"]
        done = subprocess.run(
            command, input=json.dumps(content).encode(), stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=True
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ResourceError(f"{task} could not be done: its process failed ({type(error).__name__})") from error
    finally:
        _BUSY[task].release()
    if "failure" in answer:
        raise ResourceError(f"{task} could not be done: {answer['failure']}")
    return answer["done"]


def _doctor(config: Config) -> list[dict[str, str]]:
    from cxr_node.diagnose import doctor

    return [reading.as_json() for reading in doctor.examine(config)]


def _conformance(_: Config) -> str:
    from cxr_node.conformance import statement

    return statement.write()


def _show(config: Config, results: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Heat maps as PNG, reports as HTML of our own making, which is escaped; as they were sent."""
    from cxr_node.dicom.pixels.compress import Press
    from cxr_node.dicom.render import html
    from cxr_node.node.network import pictures
    from cxr_node.node.spool.opening import open_spool
    from cxr_node.node.spool.spool import Area

    spool, shown = open_spool(config.spool), []
    for result in results:
        try:
            content = spool.load(Area.RESULTS, result["sha256"])
            if result["kind"] == ResultKind.HEATMAP:
                with closing(Press()) as press:
                    content = pictures.unpack(content, press)
        except (CxrNodeError, ValueError) as error:
            shown.append({"kind": result["kind"], "failure": str(error)})
            continue
        if result["kind"] == ResultKind.HEATMAP:
            shown.append({"kind": result["kind"], "png": base64.b64encode(html.picture_png(content)).decode()})
        else:
            shown.append({"kind": result["kind"], "html": html.report_html(content)})
    return shown


_TASKS: dict[Task, Callable[..., object]] = {Task.DOCTOR: _doctor, Task.CONFORMANCE: _conformance, Task.SHOW: _show}


def main() -> None:
    """Read one task from stdin, and answer on stdout."""
    asked = json.load(sys.stdin)
    try:
        answer = {"done": _TASKS[Task(asked["task"])](loader.parse(asked["config"]), **asked["more"])}
    except CxrNodeError as error:
        answer = {"failure": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
