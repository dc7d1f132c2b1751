"""The name of this machine, for a ledger that several share: no other has it, whatever their hosts are called."""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from cxr_node.errors import ResourceError

_MAX_HOST_CHARS = 32  # a lease's owner has 64
_FILE = "machine"
_MARK = re.compile(r"[0-9a-f]{8}")


def host() -> str:
    """What people call it."""
    return socket.gethostname()[:_MAX_HOST_CHARS]


def name(spool_path: Path) -> str:
    """Host name and a mark that is made once, in the folder of this machine's own part of the spool.

    Containers often share a host name, and copies of a virtual machine do.
    """
    file = spool_path / "run" / _FILE
    try:
        mark = _made(file)
    except OSError as error:
        raise ResourceError(f"spool: {file}: {error.strerror}") from error
    return f"{host()}-{mark}"


def _made(file: Path) -> str:
    with suppress(FileNotFoundError):
        found = file.read_text("ascii", errors="replace").strip()
        if _MARK.fullmatch(found):
            return found
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f"{_FILE}-{secrets.token_hex(4)}.new")
    fresh.write_text(secrets.token_hex(4))
    fresh.chmod(0o600)
    try:
        os.link(fresh, file)  # whoever is first names it
    except FileExistsError:
        if not _MARK.fullmatch(file.read_text("ascii", errors="replace").strip()):  # cut short by a full disk
            fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return file.read_text("ascii").strip()
