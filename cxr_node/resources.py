"""What comes with the package: built-in profiles, the example configuration, HTML templates. Imports no room."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_node.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment


DRAWN = Path(__file__).parent / "demo_radiographs"
"""Six radiographs of nobody, as JPEG."""


def bundled(name: str) -> Path:
    """Folder `weights` or `config` as shipped: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name


def profile_folder(name: str) -> Path:
    """Folder of a profile: a path if it is one, else a built-in one.

    Raises
    ------
    ConfigError : there is no such profile; names those there are.
    """
    for folder in (Path(name), bundled("weights") / name):
        if (folder / "profile.yaml").is_file():
            return folder
    known = sorted(found.parent.name for found in bundled("weights").glob("*/profile.yaml"))
    raise ConfigError(f"model.profile: no profile {name!r}; built in: {', '.join(known) or 'none'}")


def html_page(template: str, **values: Any) -> str:
    """Fill one of the templates: the demo's index page, a report, an evaluation."""
    return _templates().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, select_autoescape  # serving needs none

    loader = PackageLoader("cxr_node", "templates")
    return Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
