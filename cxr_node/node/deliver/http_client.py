"""HTTP towards one destination: with its authentication, and what it refuses or breaks off is counted."""

from __future__ import annotations

from dataclasses import replace

from cxr_node.config.destinations import HttpDestination
from cxr_node.errors import DeliveryError, UnreachableError
from cxr_node.node.deliver.http_authentication import authorization
from cxr_node.node.deliver.http_exchange import Answer, Exchanger, LateError, Request, TlsFailedError
from cxr_node.node.network.rejections import Cause, Refusal, Refusals

_SLOWEST_BYTES_PER_S = 65536  # half of what ADSL uploads: beyond, a peer is taken for dead
UNAUTHORIZED, FORBIDDEN = 401, 403


class HttpClient:
    """For one thread.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """

    def __init__(self, destination: HttpDestination, refusals: Refusals | None = None) -> None:
        self._destination = destination
        self._exchanger = Exchanger(destination.tls, destination.timeout_s, destination.proxy)
        self._authorization = authorization(destination.authentication, destination.timeout_s, destination.proxy)
        self._refusals = refusals or Refusals()

    def authorize(self) -> None:
        """See to it that there is something to show.

        Raises
        ------
        UnreachableError : there is not, now.
        """
        self._authorization.header()

    def ask(self, request: Request, size_bytes: int = 0) -> Answer:
        """Send a request, and once more with a new token where the first was not accepted.

        Raises
        ------
        UnreachableError : there was no connection or no token, so nothing was sent.
        StaleConnectionError : the connection had been kept, and was lost.
        DeliveryError : no answer, or one that is none.
        """
        limit_s = self._destination.timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
        answer = self._once(request, limit_s)
        if answer.status == UNAUTHORIZED and self._authorization.renew():
            answer = self._once(request, limit_s)
        if answer.status in (UNAUTHORIZED, FORBIDDEN):
            self._count(Cause.DESTINATION_REJECTED, answer.words)
        return answer

    def confused(self, words: str) -> None:
        """Count an answer that is none."""
        self._count(Cause.DESTINATION_CONFUSED, words)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._exchanger.close()

    def _once(self, request: Request, limit_s: float) -> Answer:
        shown = self._authorization.header()
        if shown is not None:
            request = replace(request, headers={**request.headers, "authorization": shown})
        try:
            return self._exchanger.exchange(request, limit_s)
        except DeliveryError as error:
            self._count(_cause(error), str(error))
            raise

    def _count(self, cause: Cause, words: str) -> None:
        self._refusals.add(Refusal(cause=cause, host=self._destination.host, detail=words))


def _cause(error: DeliveryError) -> Cause:
    match error:
        case TlsFailedError():
            return Cause.TLS
        case UnreachableError():
            return Cause.DESTINATION_AWAY
        case LateError():
            return Cause.DESTINATION_MUTE
        case _:
            return Cause.DESTINATION_CONFUSED if error.answered else Cause.DESTINATION_ABORTED
