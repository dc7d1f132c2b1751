"""Header fields of the parts of a multipart body (RFC 2046 5.1), while python-multipart finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from python_multipart.exceptions import FormParserError

MAX_HEADER_BYTES = 4096
"""Of all header fields of one part."""


class PartHeaders:
    """Those of the part that is being read; `begin` forgets the ones of the part before."""

    def __init__(self) -> None:
        self._name, self._value = bytearray(), bytearray()
        self._left = 0
        self._fields: dict[bytes, bytes] = {}

    def __getitem__(self, name: bytes) -> bytes | None:
        return self._fields.get(name)

    def begin(self) -> None:
        """A part begins."""
        self._name, self._value, self._left, self._fields = bytearray(), bytearray(), MAX_HEADER_BYTES, {}

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """For the parser."""
        return {
            "on_header_field": lambda data, start, end: self._more(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._more(self._value, data[start:end]),
            "on_header_end": self._end,
        }

    def _more(self, to: bytearray, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise FormParserError("the headers of a part are too long")
        to += content

    def _end(self) -> None:
        self._fields[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()
