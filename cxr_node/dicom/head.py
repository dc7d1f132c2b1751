"""The beginning of a file in memory, for who would else ask the system for every attribute of its header.

Knows no encoding.
"""

from __future__ import annotations

import io
from typing import BinaryIO

HEAD_BYTES = 64 * 1024
"""Radiographs seen so far begin their pixel data in it."""


class BeyondHeadError(Exception):
    """More of a file is asked for than its head."""


class Head(io.BytesIO):
    """What reads a file reads this; who asks for more learns that there is more."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        super().__init__(file.read(HEAD_BYTES))
        self._is_whole = size_bytes <= HEAD_BYTES

    def read(self, count: int | None = -1, /) -> bytes:
        """As the base class.

        Raises
        ------
        BeyondHeadError : the file has more to say.
        """
        content = super().read(count)
        if not self._is_whole and (count is None or not 0 <= count <= len(content)):
            raise BeyondHeadError
        return content
