"""Where secrets are, and which files other accounts may read or change. Opens no file.

A secret is a file or a systemd credential, never a value of node.yaml.

What others may change, and a private key that others may read, stops the node (exit 78) with the command that
fixes it. The spool is repaired at start: closing a folder needs no operator.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cxr_node.config import strict_yaml
from cxr_node.errors import ConfigError

log = logging.getLogger(__name__)

_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FRESH_DISK = "lost+found"


PREFIX = "credential:"
VARIABLE = "CREDENTIALS_DIRECTORY"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def well_formed(path: Path) -> Path:
    """Check how a path is written, not whether it exists.

    Raises
    ------
    ValueError : what follows `credential:` is not the name of a credential.
    """
    name = str(path).removeprefix(PREFIX)
    if name != str(path) and (_NAME.fullmatch(name) is None or name in (".", "..")):
        raise ValueError(f"{path} names no credential; write {PREFIX}NAME with letters, digits, dot, dash, underscore")
    return path


def place(path: Path) -> Path:
    """Where a configured file is.

    Raises
    ------
    ConfigError : it is a credential, and this process has none of that name.
    """
    name = str(path).removeprefix(PREFIX)
    if name == str(path):
        return path
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise ConfigError(f"{path}: ${VARIABLE} is not set; systemd sets it for a unit with LoadCredential={name}:FILE")
    if not (Path(folder) / name).is_file():
        raise ConfigError(f"{path}: no such file in {folder}; add to the unit LoadCredential={name}:FILE")
    return Path(folder) / name


def exposed(content: Any, path: str = "") -> Iterator[str]:
    """Secrets in the configuration itself, by the path of the key and without their text."""
    if isinstance(content, dict | list):
        numbered = ((strict_yaml.list_item(number, item), item) for number, item in enumerate(content))
        for key, value in content.items() if isinstance(content, dict) else numbered:
            yield from exposed(value, f"{path}.{key}".lstrip("."))
    elif isinstance(content, str):
        if "PRIVATE KEY-----" in content:
            yield f"{path}: holds a private key; move it to a file that only the node may read, and write the path"
        if any(_has_password(url) for url in _URL.findall(content)):
            yield f"{path}: holds a URL with a password; keep passwords in a file of their own"


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:  # brackets that hold no IPv6 address
        return False


def unchanged_by_others(path: Path) -> Path:
    """A file that not everyone may write.

    Raises
    ------
    ConfigError : everyone may.
    """
    mode = _mode(path)
    if mode is not None and mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: everyone on this machine may change it (mode {mode:04o}); chmod o-w {path}")
    return path


def private_key(path: Path, noun: str = "private key") -> Path:
    """The place of a private key, or other secret, that only its owner may read; its reader reports a missing one.

    A systemd credential is taken as it is: its mode shows the mask of an access control list, and its folder is
    closed to all but the unit.

    Raises
    ------
    ConfigError : others may read it, or there is no such credential.
    """
    found = place(path)
    mode = _mode(found)
    if found == path and mode is not None and mode & _GROUP_AND_OTHERS:
        raise ConfigError(f"{path}: others may read this {noun} (mode {mode:04o}); chmod 0600 {path}")
    return found


def is_open(folder: Path, own: Collection[str]) -> bool:
    """Whether a folder of patient data is accessible to others, and may be closed to them.

    Parameters
    ----------
    folder : it need not exist
    own : names of what the node keeps in it

    Raises
    ------
    ConfigError : it is open and holds other things: a shared folder must not be closed.
    """
    mode = _mode(folder)
    if mode is None or not mode & _GROUP_AND_OTHERS:
        return False
    found = {entry.name for entry in folder.iterdir()} - {_FRESH_DISK}
    if found and not found.intersection(own):
        raise ConfigError(
            f"{folder}: is open to others (mode {mode:04o}) and holds files that are not the node's; "
            f"give the spool a folder of its own, or chmod 0700 {folder}"
        )
    return True


def close(folder: Path, own: Collection[str]) -> None:
    """Make a folder of patient data accessible to its owner only, as far as it exists.

    Raises
    ------
    ConfigError : as `is_open`, or the folder belongs to another account.
    """
    if not is_open(folder, own):
        return
    try:
        folder.chmod(stat.S_IRWXU)
    except OSError as error:
        raise ConfigError(
            f"{folder}: is open to others and belongs to another account; chown it to the node's, and chmod 0700"
        ) from error
    log.warning("the spool was open to others and is now closed mode=0700")


def changeable(folder: Path) -> bool:
    """Whether this account may write into a folder that it should only read; the superuser may write anywhere."""
    return os.geteuid() != 0 and os.access(folder, os.W_OK)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
