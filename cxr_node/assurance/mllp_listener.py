"""Reports as a RIS sends them: a listener for ORU^R01 over MLLP, on loopback or behind TLS of both sides.

A message is acknowledged (AA) when its word is in the ledger, or when it says nothing that counts: it need not be sent
again. Where the ledger cannot take it the answer is AE, and the sender tries again; what is no HL7 is answered AR.
Nothing of a message is logged. HL7 Transport Specification: MLLP, Release 1; HL7 2.5.1 2.9.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from cxr_node.assurance import agreement, hl7_reports
from cxr_node.assurance.report import Readers, decoded
from cxr_node.errors import ResourceError
from cxr_node.node.ledger.ledger import Ledger

log = logging.getLogger(__name__)
START, END = b"\x0b", b"\x1c\r"
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_CONNECTIONS = 16
IDLE_S = 600.0
"""A RIS keeps its connection; one that says nothing for so long opens another."""
_SHORTEST_HEADER = len("MSH|^~\\&|")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Listener:
    """Takes messages, one after the other over all connections, for the ledger has one writer."""

    def __init__(self, ledger: Ledger, readers: Readers) -> None:
        self._ledger, self._readers = ledger, readers
        self._one_at_a_time = asyncio.Lock()
        self._connections = 0

    async def serve(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        ready: Callable[[int], None],
        stop: Callable[[], Awaitable[object]],
    ) -> None:
        """Listen until `stop` is over; `ready` is told the port. Raises OSError: the port cannot be had."""
        server = await asyncio.start_server(self._connected, host, port, ssl=tls, limit=MAX_MESSAGE_BYTES)
        async with server:
            ready(server.sockets[0].getsockname()[1])
            await stop()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                await self._conversation(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            log.info("a sender of reports is gone: %s", type(error).__name__)
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _conversation(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                framed = await reader.readuntil(END)
            message = decoded(framed[: -len(END)]).lstrip(START.decode() + "\r\n")
            async with self._one_at_a_time:
                code = await asyncio.to_thread(self._taken, message)
            writer.write(START + acknowledgment(message, code).encode() + END)
            await writer.drain()

    def _taken(self, message: str) -> str:
        """Keep what a message says; the code of its acknowledgment."""
        if not message.startswith("MSH") or len(message) < _SHORTEST_HEADER:
            return "AR"
        try:
            done = agreement.keep(self._ledger, hl7_reports.reports(message, self._readers))
        except ResourceError as error:
            log.error("a report could not be kept: %s", error)
            return "AE"
        except (LookupError, TypeError, ValueError) as error:  # the same bytes would fail again
            log.error("a report could not be read: %s", type(error).__name__)
            return "AR"
        log.info("reports taken=%d without_study=%d", done.reports, done.unmatched)
        return "AA"


def acknowledgment(message: str, code: str) -> str:
    """The answer to a message, under its control id."""
    fields = message.split("\r", 1)[0].split(message[3] if len(message) > 3 else "|")
    control_id = fields[9] if message.startswith("MSH") and len(fields) > 9 else ""
    header = ["MSH", "^~\\&", "CXR_NODE", "", "", "", f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000", "", "ACK^R01^ACK"]
    return "|".join([*header, f"A{control_id}"[:20], "P", "2.5.1"]) + f"\rMSA|{code}|{control_id}\r"
