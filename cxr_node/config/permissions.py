"""Who else on this machine may read or change what the node relies on. Imports no room, opens no file.

What others may change, and a private key that others may read, stops the node (exit 78) with the command that
mends it. The spool is mended at start: nobody needs to be woken for a folder that can be closed.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection
from pathlib import Path

from cxr_node.config.credentials import place
from cxr_node.errors import ConfigError

log = logging.getLogger(__name__)

_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FRESH_DISK = "lost+found"


def unchanged_by_others(path: Path) -> Path:
    """A file that not everybody may write.

    Raises
    ------
    ConfigError : everybody may.
    """
    mode = _mode(path)
    if mode is not None and mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: everybody on this machine may change it (mode {mode:04o}); chmod o-w {path}")
    return path


def private_key(path: Path) -> Path:
    """The place of a private key that only its owner may read; one that is missing is for its reader to tell.

    A systemd credential is taken as it is: its mode shows the mask of an access control list, and its folder is
    closed to all but the unit.

    Raises
    ------
    ConfigError : others may read it, or there is no such credential.
    """
    found = place(path)
    mode = _mode(found)
    if found == path and mode is not None and mode & _GROUP_AND_OTHERS:
        raise ConfigError(f"{path}: others may read this private key (mode {mode:04o}); chmod 0600 {path}")
    return found


def is_open(folder: Path, own: Collection[str]) -> bool:
    """Whether a folder of patient data is accessible to others, and may be closed to them.

    Parameters
    ----------
    folder : it need not exist
    own : names of what the node keeps in it

    Raises
    ------
    ConfigError : it is open and holds other things: the shared folder of somebody else must not be closed.
    """
    mode = _mode(folder)
    if mode is None or not mode & _GROUP_AND_OTHERS:
        return False
    found = {entry.name for entry in folder.iterdir()} - {_FRESH_DISK}
    if found and not found.intersection(own):
        raise ConfigError(
            f"{folder}: is open to others (mode {mode:04o}) and holds what is not the node's; "
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
    log.warning("the spool was open to others and is closed now mode=0700")


def changeable(folder: Path) -> bool:
    """Whether this account may write into a folder that it should only read; the superuser may write anywhere."""
    return os.geteuid() != 0 and os.access(folder, os.W_OK)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
