"""The pages name what is there: links, files, commands; and no command is left undocumented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from cxr_node.cli.node import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = set(typer.main.get_command(app).commands)
PLACES = (ROOT, ROOT / "cxr_node", ROOT / "docs", ROOT / "config")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    files = re.findall(r"`((?:[\w-]+/)+[\w.-]*\.(?:py|md|yaml))`", text)
    missing += [file for file in files if not any((place / file).exists() for place in PLACES)]
    named = re.findall(r"`(?:[^`\n]*/)?cxr-node ([a-z-]+)", text)
    assert not missing + [command for command in named if command not in COMMANDS]


def test_every_command_is_documented() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    assert {name for name in COMMANDS if not re.search(rf"cxr-node {name}\b", pages)} == set()
