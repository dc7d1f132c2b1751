"""Pages of HTML from the templates: the demo's index page, reports, evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

_TEMPLATES = Environment(
    loader=PackageLoader("cxr_node", "templates"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
)


def report(path: Path, fragment: str, title: str) -> None:
    """Write one report as a page of its own; `fragment` is HTML made by `dicom.readable`."""
    path.write_text(render("report.html", fragment=fragment, title=title), "utf-8")


def render(template: str, **values: Any) -> str:
    """Fill one of the templates."""
    return _TEMPLATES.get_template(template).render(**values)
