"""Files as a browser or a program sends them (RFC 7578), into files without a name, each within its bounds.

What a file is, its first bytes say. Its name is not even kept: somebody may have typed a patient's into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from cxr_node.config.schema import Config
from cxr_node.web.guard import MAX_FORM_BYTES
from cxr_node.web.judging.client import scratch
from cxr_node.web.multipart import PartHeaders
from cxr_node.web.problem import Problem

UPLOAD_S = 300.0
"""A request's files come within this: 256 MiB at 7 Mbit/s."""
_PREFIX_BYTES = 132
"""Preamble and prefix of a DICOM file (PS3.10 7.1)."""
_PNG, _JPEG, _DICOM = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"DICM"
_MAX_FIELD_BYTES = 1024
_MAX_FIELDS = 8
_LOOK_EVERY_BYTES = 16 * 1024 * 1024
_MIB = 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Upload:
    """One file; `problem` says why it cannot be judged."""

    file: BinaryIO
    size_bytes: int = 0
    head: bytes = b""
    problem: Problem | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is a PNG or JPEG, which is wrapped first."""
        return self.head.startswith((_PNG, _JPEG))


@dataclass(slots=True, kw_only=True)
class Form:
    """What came."""

    files: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Callbacks of the parser, which runs them while it is fed."""

    def __init__(self, config: Config, name: str, max_files: int, form: Form) -> None:
        assert config.web is not None  # noqa: S101 - this runs in `web`
        self._max_bytes = config.web.try_files.max_file_mib * _MIB
        self._config, self._name, self._max_files, self._form = config, name, max_files, form
        self._headers = PartHeaders()
        self._upload: Upload | None = None
        self._field, self._text = "", bytearray()
        self._left_bytes = 0
        self.is_complete = False
        """Whether the closing boundary has come."""

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            **self._headers.callbacks(),
            "on_part_begin": self._begin,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _complete(self) -> None:
        self.is_complete = True

    def _begin(self) -> None:
        self._headers.begin()
        self._upload, self._field, self._text = None, "", bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers[b"content-disposition"])
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self._form.fields) >= _MAX_FIELDS:
                raise FormParserError("too many fields")
            self._field = name
            return
        if name != self._name:
            raise Problem(422, "malformed", f"files are expected in the field {self._name}")
        if len(self._form.files) >= self._max_files:
            limit = f"at most {self._max_files} in one request"
            raise Problem(422, "too-many-files", f"there are too many files: {limit}")
        self._upload = Upload(file=scratch(self._config.spool.path))
        self._form.files.append(self._upload)

    def _data(self, data: bytes, start: int, end: int) -> None:
        upload, piece = self._upload, data[start:end]
        if upload is None:
            self._text += piece
            if len(self._text) > _MAX_FIELD_BYTES:
                raise FormParserError("a field is too long")
            return
        upload.size_bytes += len(piece)
        if len(upload.head) < _PREFIX_BYTES:
            upload.head += piece[: _PREFIX_BYTES - len(upload.head)]
            if len(upload.head) == _PREFIX_BYTES:
                upload.problem = upload.problem or _foreign(upload.head)
        if upload.size_bytes > self._max_bytes:
            limit = f"{self._max_bytes // _MIB} MiB (web.try.max_file_mib)"
            upload.problem = upload.problem or Problem(413, "too-large", f"the file is larger than {limit}")
        self._refuse_alone(upload)
        if upload.problem is None:
            self._look(len(piece))
            upload.file.write(piece)

    def _end(self) -> None:
        if self._upload is None:
            self._form.fields[self._field] = self._text.decode("utf-8", "replace")
            return
        upload, self._upload = self._upload, None
        upload.problem = upload.problem or _foreign(upload.head)
        self._refuse_alone(upload)
        upload.file.flush()

    def _refuse_alone(self, upload: Upload) -> None:
        """Refuse at once where there is one file; of several the others are answered."""
        if upload.problem is not None and self._max_files == 1:
            raise upload.problem

    def _look(self, bytes_more: int) -> None:
        """Leave the receiver the room on the disk that it needs."""
        self._left_bytes -= bytes_more
        if self._left_bytes < 0:
            self._left_bytes = _LOOK_EVERY_BYTES
            free = shutil.disk_usage(self._config.spool.path).free
            if free < self._config.spool.min_free_mib * _MIB + _LOOK_EVERY_BYTES:
                raise Problem(503, "disk", "the node's disk has no room for this file", {"Retry-After": "60"})


@contextlib.asynccontextmanager
async def received(request: Request, config: Config, name: str, max_files: int) -> AsyncIterator[Form]:
    """Take a form's files and small fields; the files are gone when the block ends.

    Parameters
    ----------
    name : of the fields that hold files
    max_files : with 1 a file that cannot be judged ends the request at once

    Raises
    ------
    Problem : 408, 413, 415, 422 or 503.
    """
    assert config.web is not None  # noqa: S101 - this runs in `web`
    limit = config.web.try_files.max_file_mib * _MIB * max_files + MAX_FORM_BYTES
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise Problem(413, "too-large", f"the request is larger than {limit // _MIB} MiB")
    form = Form()
    try:
        await _fed(request, _Reader(config, name, max_files, form))
        if not form.files:
            raise Problem(422, "malformed", f"there is no file in the field {name}")
        yield form
    finally:
        for upload in form.files:
            upload.file.close()


async def _fed(request: Request, reader: _Reader) -> None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(415, "media-type", "send multipart/form-data")
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())  # type: ignore[arg-type]  # a TypedDict
        async with asyncio.timeout(UPLOAD_S):
            async for chunk in request.stream():
                await asyncio.to_thread(parser.write, chunk)
        if not reader.is_complete:  # the parser's own `finalize` looks at nothing
            raise FormParserError("cut short")
    except FormParserError:
        raise Problem(422, "malformed", "this is no valid multipart/form-data") from None
    except ClientDisconnect:
        raise Problem(400, "cut", "the request ended early") from None
    except TimeoutError:
        raise Problem(408, "slow", f"the request took longer than {UPLOAD_S:g} s to come") from None
    except OSError as error:
        sentence = f"the file cannot be kept for a moment ({os.strerror(error.errno or 0)})"
        raise Problem(503, "disk", sentence, {"Retry-After": "60"}) from error


def _foreign(head: bytes) -> Problem | None:
    if head.startswith((_PNG, _JPEG)) or (len(head) == _PREFIX_BYTES and head.endswith(_DICOM)):
        return None
    return Problem(415, "file-type", "the file is neither DICOM (PS3.10) nor a PNG or JPEG picture")
