"""A sender over HTTP: multipart/related bodies, right and wrong, and a node whose door is open to it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from numpy.typing import NDArray

from cxr_node.config.schema import Config
from cxr_node.dicom.read import header
from cxr_node.node.audit.recorder import SILENT, Audit
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.queries import InstanceRow
from cxr_node.node.network.file_meta import file_meta
from cxr_node.node.receive.receiver import Inspect
from cxr_node.web.services import MakeDoor
from cxr_node.web.stow.door import Door, Tools
from tests import builders
from tests.chaos.corpus import SYNTAXES
from tests.node import wire
from tests.patience import PATIENCE_S
from tests.web import site
from tests.web.site import Site

SENDER, KEY = "WEB_XR", "0123456789abcdef0123456789abcdef"
BOUNDARY = "a-boundary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Believes nobody; made once, for to read the authorities of the machine costs more than a request."""
REFERENCED, FAILED, OTHERS = "00081199", "00081198", "0008119A"


def key_file(folder: Path, name: str = SENDER, key: str = KEY) -> Path:
    """A sender's key, as the node wants it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.key"
    file.write_text(f"{key}\n")
    file.chmod(0o600)
    return file


def section(folder: Path, **more: Any) -> dict[str, Any]:
    """`web.stow` for one sender with a key."""
    return {"senders": [{"name": SENDER, "key": str(key_file(folder))}]} | more


def door(inspect: Inspect = header.identify, audit: Audit = SILENT) -> MakeDoor:
    """What the command line makes."""
    return partial(Door, tools=Tools(inspect=inspect, transfer_syntaxes=SYNTAXES, audit=audit))


@contextmanager
def opened(
    folder: Path,
    *,
    stow: Mapping[str, Any] | None = None,
    inspect: Inspect = header.identify,
    audit: Audit = SILENT,
    web: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Iterator[Site]:
    """A page whose door is open."""
    found = {"stow": section(folder) if stow is None else dict(stow)} | dict(web or {})
    with site.opened(folder, users=False, web=found, make_door=door(inspect, audit), **sections) as there:
        yield there


def body(*files: bytes, kind: str = "application/dicom", boundary: str = BOUNDARY) -> bytes:
    """A multipart body with a part for each file."""
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    parts = b"".join(f"--{boundary}\r\n".encode() + head + file + b"\r\n" for file in files)
    return parts + f"--{boundary}--\r\n".encode()


def part10(data_set: bytes, uid: bytes | str, syntax: str = wire.EXPLICIT, sop_class: str = wire.DX) -> bytes:
    """A file of a data set, of whatever its File Meta Information says."""
    named = uid.decode("latin-1") if isinstance(uid, bytes) else uid
    made = file_meta(sop_class, "1.2.3", syntax)
    right, wrong = _element(0x0003, b"1.2.3"), _element(0x0003, named.encode("latin-1"))
    length = len(made) - 132 - 12 + len(wrong) - len(right)
    return made[:140] + length.to_bytes(4, "little") + made[144:].replace(right, wrong, 1) + data_set


def _element(number: int, value: bytes) -> bytes:
    even = value + b"\0" * (len(value) % 2)
    return b"\x02\x00" + number.to_bytes(2, "little") + b"UI" + len(even).to_bytes(2, "little") + even


def radiograph(number: int = 1, stored: NDArray[Any] | None = None, **attributes: Any) -> tuple[str, bytes]:
    """SOP Instance UID and file of a radiograph."""
    made = builders.radiograph(number, stored, **attributes)
    return str(made.SOPInstanceUID), builders.part10(made)


def post(
    there: Site | str, content: Any, *, path: str = "/dicom-web/studies", key: str | None = KEY, **headers: str
) -> httpx.Response:
    """Send a body."""
    address = there if isinstance(there, str) else there.address
    shown = {"content-type": RELATED} | ({} if key is None else {"authorization": f"Bearer {key}"})
    sent = shown | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{address}{path}", content=content, headers=sent, timeout=PATIENCE_S, verify=_NOBODY)


def uids(answer: httpx.Response, sequence: str) -> list[str]:
    """SOP Instance UIDs in a sequence of the answer."""
    items = answer.json().get(sequence, {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in items]


def reasons(answer: httpx.Response) -> list[int]:
    """Failure Reasons of the answer."""
    found = answer.json()
    items = [item for tag in (FAILED, OTHERS) for item in found.get(tag, {}).get("Value", [])]
    return [item["00081197"]["Value"][0] for item in items]


def rows(there: Site) -> list[InstanceRow]:
    """What its ledger has."""
    return queries.recent(there.ledger, 100_000)[::-1]


def parts(config: Config) -> list[Path]:
    """Unfinished files."""
    return list((config.spool.path / "incoming").iterdir())
