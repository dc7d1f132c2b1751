"""What comes with the package: built-in profiles and the example configuration. Imports no room."""

from __future__ import annotations

from pathlib import Path

from cxr_node.errors import ConfigError


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
