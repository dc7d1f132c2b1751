"""The whole node under the clock: real associations, real processes, a spool and a ledger of its own.

What took how long is read off the ledger; processor and memory off /proc, for each process of the node.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from cxr_node.bench import figures
from cxr_node.bench.figures import Role, Spread, WholeNode
from cxr_node.config.destinations import STANDARD_KINDS
from cxr_node.config.schema import Config
from cxr_node.diagnose import machine
from cxr_node.dicom.read import header
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.states import InstanceState
from cxr_node.result_kinds import SHAPES, ReportPer, Wish
from cxr_node.tools import trial_node
from cxr_node.tools.trial_node import Recorder

ROLES = ("receive", "work", "deliver")
WARM_UP = 2
"""Radiographs sent first and not counted: the first association to each destination, and what is made once."""
_LOOK_EVERY_S = 0.02
_MIB = 1024**2

Advance = Callable[[int], object]
"""Called with the number of radiographs that have been settled since the last call, for a bar."""


def measure(folder: Path, files: Sequence[Path], config: Config, advance: Advance) -> WholeNode:
    """Send half of the files one at a time, and the other half in one go; the first `WARM_UP` do not count.

    Raises TrialError: the node does not start, or does not answer every radiograph with its results.
    """
    warm, rest = files[:WARM_UP], files[WARM_UP:]
    first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    with contextlib.ExitStack() as stack:
        settings = _settings(config, stack)
        node = stack.enter_context(trial_node.node(folder, settings, "CXR_BENCH"))
        _answered(node, warm, advance)
        alone = [story for file in first for story in _answered(node, [file], advance)]
        by_role = processes(node.pid)
        before = {name: cpu_s(found) for name, found in by_role.items()}
        own_s = machine.cpu_s(os.getpid(), children=False)
        together = _answered(node, second, advance)
        own_s = machine.cpu_s(os.getpid(), children=False) - own_s
        roles = tuple(
            Role(
                name=name,
                cpu_s_per_1000_images=figures.per_1000(cpu_s(found) - before[name], len(together)),
                peak_mib=sum(machine.peak_bytes(process.pid) for process in found) / _MIB,
            )
            for name, found in by_role.items()
        )
        return WholeNode(
            started_in_s=node.started_in_s,
            one_at_a_time=_turnaround(alone),
            all_at_once=_turnaround(together),
            images_per_s=images_per_s(together),
            roles=roles,
            peers_cpu_s_per_1000_images=figures.per_1000(own_s, len(together)),
        )


def images_per_s(stories: Sequence[Story]) -> float:
    """From the first receipt to the last result acknowledged."""
    began = min(story.instance.received_at for story in stories)
    ended = max(one.delivered_at for story in stories for one in story.deliveries if one.delivered_at is not None)
    return len(stories) / (ended - began).total_seconds()


def _settings(config: Config, stack: contextlib.ExitStack) -> dict[str, Any]:
    """The configuration, with a PACS on loopback in the place of each of its destinations.

    Each radiograph is a study of its own, so no image is waited for: the figures are of work, not of `study.quiet_s`.
    """
    kept = config.model_dump(mode="json", exclude={"listen", "spool", "audit", "priors", "destinations"})
    wanted = config.wishes or {"pacs": Wish(per=ReportPer.STUDY, kinds=STANDARD_KINDS)}
    destinations = []
    for number, (name, wish) in enumerate(wanted.items()):
        pacs = stack.enter_context(Recorder(None, f"BENCH_{number}"))
        kinds = [kind.value for kind in wish.kinds if SHAPES[kind].is_dicom]
        if not kinds:  # it gets messages, which a PACS does not take
            continue
        how = {"send": kinds, "report_per": wish.per.value, "heatmap_compression": "none"}  # what the PACS accepts
        destinations.append({"name": name, "address": str(pacs.address), **how})
    at_once = {"study": {**kept["study"], "quiet_s": 0.0}}
    return {**kept, **at_once, "audit": {"enabled": config.audit.enabled}, "destinations": destinations}


def _answered(node: trial_node.Node, files: Sequence[Path], advance: Advance) -> list[Story]:
    """Send files over one association, and wait until all of them are answered; they are deleted then."""
    uids = [header.inspect(file).ref.sop_instance_uid for file in files]
    trial_node.store(node, files, lambda path: path.unlink())
    left = len(files)

    def waiting(number: int) -> None:
        nonlocal left
        advance(left - number)
        left = number

    stories = trial_node.settled(node, uids, waiting, _LOOK_EVERY_S)
    for story in stories.values():
        _require_delivered(story, node)
    return [stories[uid] for uid in uids]


def _require_delivered(story: Story, node: trial_node.Node) -> None:
    row = story.instance
    if row.state is not InstanceState.DELIVERED:
        why = f"{row.reason or ''} {row.sentence or ''}".strip()
        raise trial_node.TrialError(f"a drawn radiograph ended as {row.state}: {why or node.last_words}")


def _turnaround(stories: Iterable[Story]) -> Spread:
    """Of those that have results: a destination may want only what not every radiograph gets."""
    each_ms = [ms for story in stories if (ms := trial_node.turnaround_ms(story)) is not None]
    if not each_ms:
        raise trial_node.TrialError("this configuration makes no result of the drawn radiographs")
    return figures.spread(each_ms)


def processes(serve_pid: int) -> dict[str, list[psutil.Process]]:
    """The node's processes by their role; there may be several workers."""
    found: dict[str, list[psutil.Process]] = {role: [] for role in ROLES}
    for child in psutil.Process(serve_pid).children():
        role = next((word for word in child.cmdline() if word in ROLES), None)
        if role is not None:
            found[role].append(child)
    return found


def cpu_s(some: Iterable[psutil.Process]) -> float:
    """CPU seconds of some processes, and of those that they started, so far."""
    return sum(machine.cpu_s(process.pid) for process in some)
