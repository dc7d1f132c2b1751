"""Association acceptance: called and calling AE title, host, certificate, and how many at a time (PS3.8 9.3.4).

Knows no message. A refusal is an A-ASSOCIATE-RJ with the reason the standard has for it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast

from pynetdicom import evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context

from cxr_node.config.schema import Listen, Peer
from cxr_node.node.network.guarded_socket import GuardedSocket
from cxr_node.node.network.rejections import Cause, Refusal, Refusals
from cxr_node.node.network.tls import PeerCertificate


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    LOCAL_LIMIT = (2, 3, 2)


ANSWERS = {
    Cause.CALLED_AE_TITLE: Rejection.CALLED_AE_TITLE,
    Cause.CALLING_AE_TITLE: Rejection.CALLING_AE_TITLE,
    Cause.HOST: Rejection.CALLING_AE_TITLE,
    Cause.CERTIFICATE: Rejection.CALLING_AE_TITLE,
    Cause.LOCAL_LIMIT: Rejection.LOCAL_LIMIT,
    Cause.DRAINING: Rejection.LOCAL_LIMIT,
}
"""What a caller is answered; the log alone says which of the three it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an A-ASSOCIATE-RQ says, and where it came from."""

    called_ae_title: str
    calling_ae_title: str
    host: str
    certificate: PeerCertificate | None = None
    """The certificate of the TLS handshake."""


def judge(call: Call, listen: Listen, established: Counter[str]) -> Cause | None:
    """Why a call is refused; None if it is accepted. `established` counts the other associations by host."""
    if listen.require_called_ae_title and call.called_ae_title != listen.ae_title:
        return Cause.CALLED_AE_TITLE
    if listen.peers and (stranger := _recognize(call, listen.peers)) is not None:
        return stranger
    full = established.total() >= listen.max_associations
    if full or established[call.host] >= listen.max_associations_per_host:
        return Cause.LOCAL_LIMIT
    return None


def _recognize(call: Call, peers: Sequence[Peer]) -> Cause | None:
    """Compare with the table: AE title, host and certificate must be of one and the same peer."""
    named = [peer for peer in peers if peer.ae_title == call.calling_ae_title]
    there = [peer for peer in named if not peer.hosts or any(is_host(call.host, host) for host in peer.hosts)]
    if any(
        not peer.certificate or (call.certificate and call.certificate.is_one_of(peer.certificate)) for peer in there
    ):
        return None
    return Cause.CERTIFICATE if there else Cause.HOST if named else Cause.CALLING_AE_TITLE


def prefer(
    proposed: Sequence[PresentationContext], supported: Sequence[PresentationContext]
) -> list[PresentationContext]:
    """Order the supported transfer syntaxes as the caller proposes them.

    A sender that proposes several in one context names its stored syntax first; pynetdicom would choose by
    our order, and some callers then fail because they cannot transcode.
    """
    wishes: dict[str, list[str]] = {}
    for context in proposed:
        wishes.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))
    return [_ordered(context, wish) for context in supported if (wish := wishes.get(str(context.abstract_syntax)))]


def _ordered(context: PresentationContext, wish: Sequence[str]) -> PresentationContext:
    syntaxes = sorted(map(str, context.transfer_syntax), key=_rank(wish))
    ordered = build_context(str(context.abstract_syntax), syntaxes)
    ordered.scu_role, ordered.scp_role = context.scu_role, context.scp_role
    return ordered


def _rank(wish: Sequence[str]) -> Callable[[str], int]:
    return lambda syntax: wish.index(syntax) if syntax in wish else len(wish)


class House(Protocol):
    """The listener, as far as a call is judged by it."""

    @property
    def listen(self) -> Listen:
        """Its rules."""

    @property
    def is_draining(self) -> bool:
        """It stops, and lets nobody in any more."""

    def established(self) -> Counter[str]:
        """Count the associations of each host."""


class GuardedAcse(ACSE):
    """pynetdicom's negotiation, after our own rules; a fault in a rule ends the association."""

    def __init__(self, assoc: Association, house: House, refusals: Refusals) -> None:
        super().__init__(assoc)
        self._house = house
        self._refusals = refusals

    def _negotiate_as_acceptor(self) -> None:
        request = cast(A_ASSOCIATE, self.requestor.primitive)  # the reason this is called
        connection = cast(GuardedSocket, self.assoc.dul.socket)
        call = Call(
            called_ae_title=connection.called_ae_title,
            calling_ae_title=connection.calling_ae_title,
            host=str(self.requestor.address),
            certificate=connection.peer_certificate,
        )
        cause = judge(call, self._house.listen, self._house.established())
        if cause is None and self._house.is_draining:
            cause = Cause.DRAINING
        if cause is None:
            self.acceptor.supported_contexts = prefer(
                request.presentation_context_definition_list, self.acceptor.supported_contexts
            )
            super()._negotiate_as_acceptor()
            return
        self._refusals.add(
            Refusal(cause=cause, host=call.host, ae_title=call.calling_ae_title, detail=_detail(cause, call))
        )
        self.send_reject(*ANSWERS[cause].value)
        evt.trigger(self.assoc, evt.EVT_REJECTED, {})
        self.assoc.is_rejected = True
        self.assoc.kill()


def _detail(cause: Cause, call: Call) -> str:
    """What an operator needs to correct it, and nothing else."""
    match cause:
        case Cause.CALLED_AE_TITLE:
            return f"called={call.called_ae_title!r}"
        case Cause.DRAINING:
            return "the receiver stops"
        case Cause.CERTIFICATE if call.certificate is not None:
            return f"names={','.join(sorted(call.certificate.names))!r} sha256={call.certificate.fingerprint}"
        case _:
            return ""


def is_host(address: str, host: str) -> bool:
    """Compare with an address, a network (10.1.0.0/16) or a name; a name that does not resolve matches nothing."""
    caller = _plain(address)
    try:
        return caller in ipaddress.ip_network(host, strict=False)
    except ValueError:
        pass
    try:
        return any(caller == _plain(str(found[4][0])) for found in socket.getaddrinfo(host, None))
    except OSError:
        return False


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address; one of IPv4 inside IPv6 (::ffff:10.0.0.1) is what it means."""
    found = ipaddress.ip_address(address.split("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
