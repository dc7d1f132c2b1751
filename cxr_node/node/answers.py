"""What a peer that we called has answered, or why it has not, in words for the journal and the audit.

Knows no object and no schedule.
"""

from __future__ import annotations

import functools
import socket
import ssl

from pynetdicom.association import Association

from cxr_node.config.schema import Address
from cxr_node.node import associate_pdu, responses
from cxr_node.node.association import Connection, Entity, TlsArguments
from cxr_node.node.refusals import Cause, Refusal
from cxr_node.node.responses import Response
from cxr_node.node.tls import why

TLS_FAILED = "TLS failed"
_DIAGNOSIS_S = 2.0
_ALERT_S = 0.5  # in TLS 1.3 a server looks at our certificate after our side of the handshake has ended


def fault(association: Association, expected: Response, message_id: int) -> str:
    """Say why the last response is no answer to a request; "" where it is one, or where none has come."""
    connection = association.dul.socket
    if not isinstance(connection, Connection):
        return ""
    if connection.answer is None:
        return f"the peer sent {connection.fault}" if connection.fault else ""
    return responses.fault(connection.answer, expected, message_id)


def said(association: Association) -> str:
    """Say how the peer ended the association; "" where it did not."""
    connection = association.dul.socket
    return connection.said if isinstance(connection, Connection) else ""


def why_not(association: Association, address: Address, timeout_s: float, tls: TlsArguments | None) -> Refusal:
    """Say why no association came about, and what is to be counted."""
    connection = association.dul.socket
    made = functools.partial(Refusal, host=address.host, ae_title=address.ae_title)
    if not isinstance(connection, Connection) or not connection.connected:
        words = diagnose(address, timeout_s, tls)
        cause = Cause.TLS if words.startswith(TLS_FAILED) else Cause.DESTINATION_AWAY
        return made(cause=cause, detail=f"no connection: {words}")
    # pynetdicom's own mark is missing where the peer closed before its thread came to the rejection.
    if association.is_rejected or connection.said.startswith(associate_pdu.REJECTED):
        return made(cause=Cause.DESTINATION_REJECTED, detail=connection.said)
    if connection.fault:
        words = f"the answer to the association request is {connection.fault}"
        return made(cause=Cause.DESTINATION_CONFUSED, detail=words)
    if connection.said:
        return made(cause=Cause.DESTINATION_ABORTED, detail=f"no answer to the association request: {connection.said}")
    return made(cause=Cause.DESTINATION_MUTE, detail=f"no answer to the association request in {timeout_s:g} s")


def broken(entity: Entity, address: Address, cause: Cause, words: str) -> None:
    """Count, and tell the audit, that a destination broke an association off or answered what nobody asked."""
    entity.refusals.add(Refusal(cause=cause, host=address.host, ae_title=address.ae_title, detail=words))


def diagnose(address: Address, timeout_s: float, tls: TlsArguments | None) -> str:
    """Say why no connection came about; pynetdicom tells only its log."""
    try:
        with socket.create_connection((address.host, address.port), min(timeout_s, _DIAGNOSIS_S)) as connection:
            return _diagnose_tls(connection, *tls) if tls else "the connection was lost"
    except OSError as error:
        return error.strerror or "timed out"


def _diagnose_tls(connection: socket.socket, context: ssl.SSLContext, name: str) -> str:
    try:
        with context.wrap_socket(connection, server_hostname=name) as wrapped:
            wrapped.settimeout(_ALERT_S)
            wrapped.recv(1)
    except TimeoutError:
        return f"{TLS_FAILED}, or the connection was lost"
    except OSError as error:
        return f"{TLS_FAILED}: {why(error)}"
    return f"{TLS_FAILED}: the peer ended the connection"
