"""Verification SCU (PS3.4 Annex A), and the short association that it and `cxr-node send` open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError
from cxr_node.node.network.association import Entity, TlsArguments, ask, deadline, dispose, fault, said, why_not
from cxr_node.node.network.statuses import Response

VERIFICATION = "1.2.840.10008.1.1"
_MESSAGE_ID = 1  # pynetdicom's own
_MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd identifiers 1 to 255


def echo(address: Address, calling_ae_title: str, timeout_s: float = 5.0, tls: TlsArguments | None = None) -> None:
    """C-ECHO.

    Raises
    ------
    DeliveryError : the peer cannot be reached, refuses the association or does not answer.
    """
    kinds = {(VERIFICATION, "1.2.840.10008.1.2")}
    with associated(address, calling_ae_title, kinds, timeout_s, tls) as association:
        answer = ask(association, association.send_c_echo)
        status = status_of(answer, association, Response.C_ECHO, f"{address} did not answer the C-ECHO")
        if status != 0:
            raise DeliveryError(f"{address} answers the C-ECHO with status 0x{status:04X}", permanent=False)


def status_of(answer: Any, association: Association, expected: Response, otherwise: str) -> int:
    """Read the status of an answer.

    Raises
    ------
    DeliveryError : there is none, or it is the answer to something else.
    """
    if words := fault(association, expected, _MESSAGE_ID):
        raise DeliveryError(words, permanent=False)
    if answer is None or "Status" not in answer:
        how = said(association)
        raise DeliveryError(f"{otherwise}: {how}" if how else otherwise, permanent=False)
    return int(answer.Status)


@contextlib.contextmanager
def associated(
    address: Address,
    calling_ae_title: str,
    kinds: set[tuple[str, str]],
    timeout_s: float,
    tls: TlsArguments | None = None,
) -> Iterator[Association]:
    """Open an association for the length of a block, for SOP Classes in transfer syntaxes.

    Raises
    ------
    DeliveryError : there is no association.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # from the file, as it is: no decoding, no second copy
    entity = Entity(calling_ae_title, timeout_s)
    entity.dimse_timeout = entity.network_timeout = timeout_s
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(kinds)][:_MAX_CONTEXTS]
    try:
        association = entity.open(address, contexts, tls, [])
    except OSError as error:  # the host name has no address
        raise DeliveryError(f"{address.host}: {error.strerror}", permanent=False) from error
    if not association.is_established:
        dispose(association)
        raise DeliveryError(_refusal(association, address, timeout_s, tls), permanent=False)
    try:
        yield association
    finally:
        if association.is_established:
            with deadline(association, timeout_s):
                association.release()


def _refusal(association: Association, address: Address, timeout_s: float, tls: TlsArguments | None) -> str:
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0 and not association.accepted_contexts:
        return f"{address} accepts none of the SOP Classes"
    return f"{address}: {why_not(association, address, timeout_s, tls).detail}"
