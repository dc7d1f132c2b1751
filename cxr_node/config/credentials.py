"""Secrets stand in files, never in node.yaml: where those files are. Imports no room.

A path may be `credential:NAME`: the file of that name which systemd gives the unit (`LoadCredential=`), in memory
that no other account reads (systemd.exec(5), Credentials). It is looked up when it is used: each unit has its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cxr_node.config import strict_yaml
from cxr_node.errors import ConfigError

PREFIX = "credential:"
VARIABLE = "CREDENTIALS_DIRECTORY"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def well_formed(path: Path) -> Path:
    """Check how a path is written, not whether it is there.

    Raises
    ------
    ValueError : what follows `credential:` is no name of a credential.
    """
    name = str(path).removeprefix(PREFIX)
    if name != str(path) and (_NAME.fullmatch(name) is None or name in (".", "..")):
        raise ValueError(f"{path} names no credential; write {PREFIX}NAME with letters, digits, dot, dash, underscore")
    return path


def place(path: Path) -> Path:
    """Where a configured file is.

    Raises
    ------
    ConfigError : it is a credential, and this process was given none of that name.
    """
    name = str(path).removeprefix(PREFIX)
    if name == str(path):
        return path
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise ConfigError(f"{path}: ${VARIABLE} is not set; systemd sets it for a unit with LoadCredential={name}:FILE")
    if not (Path(folder) / name).is_file():
        raise ConfigError(f"{path}: there is no such file in {folder}; give the unit LoadCredential={name}:FILE")
    return Path(folder) / name


def exposed(content: Any, path: str = "") -> Iterator[str]:
    """Say each secret that stands in a configuration itself, by the path of its key and without its text."""
    if isinstance(content, dict | list):
        numbered = ((strict_yaml.list_item(number, item), item) for number, item in enumerate(content))
        for key, value in content.items() if isinstance(content, dict) else numbered:
            yield from exposed(value, f"{path}.{key}".lstrip("."))
    elif isinstance(content, str):
        if "PRIVATE KEY-----" in content:
            yield f"{path}: holds a private key; put it into a file that only the node may read, and write its path"
        if any(_has_password(url) for url in _URL.findall(content)):
            yield f"{path}: holds a URL with a password in it; a password stands in a file of its own, never here"


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:  # brackets that hold no IPv6 address
        return False
