"""Storage SCU for people: `cxr-node send` and `demo`.

The node's own results travel by `node.deliver.storage_scu`, which keeps associations open; this one sends files once.
"""

from __future__ import annotations

import errno
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset

from cxr_node.config.network import Address
from cxr_node.domain import Priority
from cxr_node.errors import ConfigError, DeliveryError, InstanceError, ResourceError
from cxr_node.node.network.association import ask
from cxr_node.node.network.dimse import PRIORITIES
from cxr_node.node.network.statuses import Response
from cxr_node.node.network.verification import associated, status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one file; `status` is the DIMSE status, None where the peer gave none."""

    path: Path
    status: int | None
    sentence: str

    @property
    def ok(self) -> bool:
        """Stored, perhaps with a warning (PS3.4 B.2.3: 0000, Bxxx)."""
        return self.status is not None and (self.status == 0 or self.status & 0xF000 == 0xB000)


def bind_for_a_moment(host: str, port: int) -> None:
    """Prove that a port can be listened on.

    Raises ResourceError: it cannot now, and why: somebody else listens there; ConfigError: it never can: the address is
    none of this machine, or the port is not for this account.
    """
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        fault = ResourceError if error.errno == errno.EADDRINUSE else ConfigError
        raise fault(f"{host}:{port} cannot be listened on: {error.strerror}") from error


def certificate_at(host: str, port: int, timeout_s: float = 2.0) -> bytes | None:
    """PEM of what a TLS listener shows, unverified; None where there is none."""
    try:
        return ssl.get_server_certificate((host, port), timeout=timeout_s).encode()
    except OSError:
        return None


def free_port(host: str) -> int:
    """Find a port that nobody listens on at this moment, and that the kernel gives to no connection meanwhile."""
    while True:
        port = 12000 + secrets.randbelow(20768)  # below net.ipv4.ip_local_port_range
        try:
            with socket.create_server((host, port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def store(
    paths: Sequence[Path],
    arrived: Callable[[Sent], None],
    address: Address,
    calling_ae_title: str,
    timeout_s: float = 60.0,
    priority: Priority = Priority.MEDIUM,
) -> None:
    """C-STORE files over one association, each in its own transfer syntax, and tell of each as it is answered.

    Raises DeliveryError: the peer cannot be reached, refuses the association or breaks it.
    """
    kinds: dict[Path, tuple[str, str]] = {}
    for path in paths:
        try:
            kinds[path] = _kind(path)
        except InstanceError as error:
            arrived(Sent(path=path, status=None, sentence=str(error)))
    if not kinds:
        return
    with associated(address, calling_ae_title, set(kinds.values()), timeout_s) as association:
        for path in kinds:
            arrived(_store(association, path, address, priority))


def _store(association: Association, path: Path, address: Address, priority: Priority) -> Sent:
    if not association.is_established:
        raise DeliveryError(f"{address} ended the association", permanent=False)
    try:
        answer = ask(association, lambda: association.send_c_store(path, priority=PRIORITIES[priority]))
    except ValueError:
        return Sent(path=path, status=None, sentence="the peer takes no such SOP class in this transfer syntax")
    status = status_of(answer, association, Response.C_STORE, f"{address} did not answer a C-STORE")
    return Sent(path=path, status=status, sentence=str(answer.get("ErrorComment", "")) or f"status 0x{status:04X}")


def _kind(path: Path) -> tuple[str, str]:
    try:
        meta, _ = split_dataset(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except OSError as error:
        raise InstanceError(f"cannot be read ({error.strerror})") from error
    except Exception as error:  # pydicom's parser raises whatever the bytes provoke
        raise InstanceError("is no DICOM Part 10 file") from error
