"""The walls and floors of the house, read off the syntax trees: one library, one room; imports run downwards only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cxr_node"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
LONGEST = 450
"""Lines of a module whose one subject needs them; 300 are the rule."""

LIBRARY_LIVES_IN = {
    "pydicom": {"dicom"},
    "highdicom": {"dicom"},
    "openvino": {"model"},
    "torch": {"model", "training"},
    "torchvision": {"model", "training"},
    "pynetdicom": {"node", "tools"},
    "socket": {"node", "tools", "web"},
    "sqlalchemy": {"node"},
    "alembic": {"node"},
    "cryptography": {"node", "diagnose"},
    "prometheus_client": {"node", "web"},
    "psycopg": {"node"},
    "apprise": {"web"},
    "httpx": {"node"},
    "boto3": {"node"},
    "botocore": {"node"},
    "argon2": {"web"},
    "authlib": {"web"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "python_multipart": {"web"},
    "pickle": set(),  # weights are safetensors; nothing is unpickled
}
FLOORS = {
    "": (  # from the roof down: who stands on one line knows only what stands below it
        "__main__",
        "cli",
        "web",
        "bench",
        "assurance conformance demo diagnose",
        "tools",
        "wiring",
        "pipeline study_pipeline training",
        "messages",
        "dicom model node",
        "config heatmap judgement_text resources",
        "outcome",
        "subgroups",
        "domain",
        "averaging errors process_setup result_kinds times",
    ),
    "node": (
        "deliver receive",
        "work commitment audit priors worklists",
        "ledger network",
        "process retry spool",
    ),
    "dicom": (
        "verify",
        "results",
        "deidentify render",
        "pixels words",
        "read",
        "part10 from_picture",
    ),
    "training": (
        "learn report",
        "calibrate saliency",
        "measure",
        "synthetic",
        "data",
    ),
    "web": (
        "server",
        "app",
        "api pages",
        "uploads",
        "access guard",
        "services",
        "problems",
        "rendering",
        "identity judging monitoring stow",
        "multipart problem",
    ),
    "messages": (
        "check fhir_bundle",
        "oru",
        "answer",
    ),
    "config": (
        "loader",
        "consistency",
        "schema",
        "worklists",
        "destinations ledger monitoring page storage triage",
        "http",
        "network",
        "section",
        "permissions",
        "strict_yaml",
    ),
}
"""Rooms of the house, and of each large room its sub-rooms, in the order in which imports may run."""
MAY_NOT_ENTER = {
    "pipeline": {"node", "model"},
    "dicom": {"node", "model"},
    "messages": {"node", "model"},
    "model": {"dicom", "node"},
    "node": {"dicom", "model"},
    "training": {"node"},
    "tools": {"training"},
    "wiring": {"node"},
}
"""Walls between rooms that stand beside each other, or whose library must not come along."""
DOORS = {("pipeline", "model.profile"), ("pipeline", "model.decision"), ("wiring", "node.ledger")}
"""What may be entered through a wall: plain values and plain arithmetic."""


@cache
def imports(module: Path) -> list[str]:
    return list(_imports(module))


def _imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(module: Path) -> tuple[str, ...]:
    return module.relative_to(PACKAGE).with_suffix("").parts


def entered(module: Path) -> Iterator[tuple[str, ...]]:
    """What a module imports of ours, as places."""
    for name in imports(module):
        if name.startswith("cxr_node."):
            yield tuple(name.split(".")[1:])


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_a_library_lives_in_its_room(module: Path) -> None:
    for name in imports(module):
        allowed = LIBRARY_LIVES_IN.get(name.split(".")[0])
        assert allowed is None or place(module)[0] in allowed, f"{name} is not for {place(module)[0]}"


def height(room: str, name: str) -> int:
    """How high a sub-room stands; a name that stands on no floor is a mistake in the table."""
    floors = FLOORS[room]
    return next(len(floors) - number for number, floor in enumerate(floors) if name in floor.split())


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_imports_run_downwards(module: Path) -> None:
    here = place(module)
    for there in entered(module):
        for room, mine, its in (("", here, there), (here[0], here[1:], there[1:] if there[0] == here[0] else ())):
            if (
                room in FLOORS
                and mine
                and its
                and "__init__" not in mine[0]
                and mine[0] != its[0]
                and its[0] != "__version__"
            ):
                assert height(room, mine[0]) > height(room, its[0]), f"{'.'.join(here)} climbs to {'.'.join(there)}"


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_nobody_goes_through_a_wall(module: Path) -> None:
    here = place(module)[0]
    for there in entered(module):
        if there[0] in MAY_NOT_ENTER.get(here, ()):
            assert (here, ".".join(there[:2])) in DOORS, f"{here} enters {'.'.join(there)}"
        assert there[0] != "training" or here in ("training", "cli"), f"{here} enters training"


def test_every_room_stands_on_a_floor() -> None:
    for room, floors in FLOORS.items():
        there = {path.stem for path in (PACKAGE / room).iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
        named = {name for floor in floors for name in floor.split()}
        assert there - {"__init__"} == named, room


def test_no_module_is_longer_than_one_subject_needs() -> None:
    long = {ids(path): lines for path in MODULES if (lines := path.read_text().count("\n")) > LONGEST}
    assert not long
