"""What this machine can do for the node, measured: one line each, with what to do about it.

The configuration and the world it names are for `check`. Nothing here is a patient's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from cxr_node.config import loader
from cxr_node.config.schema import Config
from cxr_node.diagnose import disk, machine, store, thresholds
from cxr_node.diagnose.thresholds import CheckResult
from cxr_node.dicom.pixels import codecs
from cxr_node.errors import CxrNodeError

RECEIVER = "cxr-node-receive.service"


def examine(config: Config | None = None) -> Iterator[CheckResult]:
    """Measure the machine for a configuration; without one for the defaults, on the disk of the temporary folder."""
    settings = config or loader.parse({"spool": {"path": tempfile.gettempdir()}})
    yield from _disk(settings, trial=config is None)
    yield from store.examine(settings.spool)
    yield thresholds.clock(machine.clock())
    yield from _decoders()
    yield from _limits(settings)
    yield from thresholds.memory(machine.memory())
    yield thresholds.processor(machine.processor(), settings.model.threads)
    yield from thresholds.confinement(machine.confinement())
    yield from thresholds.versions(machine.versions([name for name in thresholds.TESTED if name != "python"]))


def stops(results: list[CheckResult]) -> int:
    """How many of them the node cannot work with."""
    return sum(not result.ok for result in results)


def _disk(settings: Config, *, trial: bool) -> Iterator[CheckResult]:
    path = settings.spool.path
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield thresholds.stop(
            "spool", f"{existing}: not writable", "run this as the account that owns the spool: sudo -u cxr-node"
        )
        return
    try:
        measured = disk.measure(existing)
    except CxrNodeError as error:
        yield thresholds.stop("spool", str(error), "repair the disk: the node could store nothing")
        return
    yield from thresholds.disk(measured, settings.spool, trial=trial)


def _decoders() -> Iterator[CheckResult]:
    try:
        trials = codecs.trials()
    except CxrNodeError as error:
        yield thresholds.stop("decoders", str(error), "look for a limit on memory or processes")
        return
    yield from thresholds.decoders(trials, codecs.missing())


def _limits(settings: Config) -> Iterator[CheckResult]:
    of_unit = machine.unit_limits(RECEIVER)
    if of_unit is not None:
        yield from thresholds.limits(of_unit, settings.listen, RECEIVER)
    else:
        yield from thresholds.limits(machine.limits(), settings.listen, "this process")
