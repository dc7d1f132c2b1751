"""The walls of the house, read off the syntax trees: one library, one room; who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cxr_node"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("dicom", "model", "node", "training")

LIBRARY_LIVES_IN = {
    "pydicom": {"dicom"},
    "highdicom": {"dicom"},
    "openvino": {"model"},
    "torch": {"model", "training"},
    "torchvision": {"model", "training"},
    "pynetdicom": {"node"},
    "socket": {"node"},
    "sqlalchemy": {"node"},
    "alembic": {"node"},
    "cryptography": {"node"},
    "pickle": set(),  # weights are safetensors; nothing is unpickled
}
TOP_MAY_ENTER = {
    "domain": set(),
    "errors": set(),
    "config": set(),
    "pipeline": {"dicom", "model.profile", "model.decision"},
}
ROOM_MAY_ENTER = {"dicom": set(), "model": set(), "node": set(), "training": {"model", "dicom"}}
"""Beside itself and the nouns at the top; nobody but the command line enters `training`."""


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: Path) -> str:
    """Name of a room, or the module's own name where it stands at the top."""
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_lives_in_its_room(module: Path) -> None:
    for name in imports(module):
        allowed = LIBRARY_LIVES_IN.get(name.split(".")[0])
        assert allowed is None or room_of(module) in allowed, f"{name} is not for {room_of(module)}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_do_not_see_each_other(module: Path) -> None:
    here = room_of(module)
    for name in imports(module):
        if not name.startswith("cxr_node."):
            continue
        entered = name.removeprefix("cxr_node.")
        room = entered.split(".")[0]
        if room not in ROOMS or room == here:
            continue
        allowed = ROOM_MAY_ENTER.get(here, TOP_MAY_ENTER.get(here))
        if allowed is None:  # cli, demo, check, classify wire the rooms together
            assert room != "training" or here == "cli_training", f"{here} enters {entered}"
        else:
            assert any(entered == door or entered.startswith(f"{door}.") for door in allowed), (
                f"{here} enters {entered}"
            )


def test_rooms_do_not_import_the_wiring() -> None:
    wiring = {"cli", "cli_bench", "cli_import", "cli_ledger", "cli_operate", "cli_rebuild", "cli_results"}
    wiring |= {"cli_training"}
    wiring |= {"bench", "bench_node", "bench_stages", "command", "demo", "drawn", "check", "classify", "conformance"}
    wiring |= {"doctor", "loading", "pipeline", "trial"}
    for module in MODULES:
        if room_of(module) in ROOMS:
            entered = {name.split(".")[1] for name in imports(module) if name.startswith("cxr_node.")}
            assert not entered & wiring, f"{module}: {entered & wiring}"
