"""A bucket of an object store as the store (Amazon S3, Ceph, SeaweedFS, and what else answers conditional writes).

An object is put under the condition that there is none (If-None-Match), with the digest that the service checks; it
appears whole or not at all. Its time is metadata of it. Objects above a size go in parts, and appear with the last one.
"""

from __future__ import annotations

import base64
import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as IniError
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from cxr_node.config import permissions
from cxr_node.config.storage import S3Store as Settings
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.spool.cache import Cache
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.store import Found

T = TypeVar("T")
_AT = "first-put-at"
_TRIES = 3
"""Of one request: with their pauses they end before a sender stops waiting."""
_CONNECT_S = 5.0
_PIECE_BYTES = 8 * MIB
"""Of an object that goes in parts; the least is 5 MiB, and each writer holds one in memory."""
_ABANDONED_AFTER = timedelta(days=1)
_IS_THERE = ("PreconditionFailed", "412")
_AT_THE_SAME_TIME = ("ConditionalRequestConflict", "OperationAborted", "409")
_MISSING = ("NoSuchKey", "404")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403")
_NOT_IMPLEMENTED = ("NotImplemented", "501")


class S3Store:
    """Objects of a bucket, each named as it is called. Threads share it.

    Raises
    ------
    ConfigError : the file of credentials cannot be used.
    """

    writers = 16
    takes_files = False

    def __init__(self, settings: Settings, cache: Cache, multipart_bytes: int = 64 * MIB) -> None:
        self._settings = settings
        self._cache = cache
        self._multipart_bytes = multipart_bytes
        self._client = _client(settings, self.writers)

    def prepare(self) -> None:
        """Try all that is asked of the bucket later; and delete what dead writers left."""
        self._cache.trim()
        settings = self._settings
        where = f"bucket {settings.bucket} at {settings.endpoint or f'Amazon S3, {settings.region}'}"
        try:
            with self._answers():
                next(self.list("objects/"), None)
                self._try_conditions(where)
        except _RefusedError as error:
            raise ConfigError(f"spool.store: {where}: {_sentence(error.code)}") from error
        with suppress(ResourceError):  # some services know no such list
            self._abort_abandoned()

    def put(self, name: str, part: Part, at: datetime, *, replace: bool = False) -> datetime:
        """Put if absent; what is there is put again, with its own time."""
        with self._answers():
            if not replace and not self._upload(name, part, at, IfNoneMatch="*"):
                found = self.exists(name)
                at, replace = at if found is None else found.at, True
            if replace:
                self._upload(name, part, at)
        if name.endswith(".dcm"):  # a note may be another one by now
            self._cache.take(name, part)
        return at

    def get(self, name: str) -> bytes:
        """Read an object, or its copy on this machine."""
        if name.endswith(".dcm") and (cached := self._cache.get(name)) is not None:
            return cached
        with self._answers():
            content = _again(lambda: self._fetch(name), _CutError)
        if name.endswith(".dcm"):
            self._cache.keep(name, content)
        return content

    def exists(self, name: str) -> Found | None:
        """Look at an object's head."""
        with self._answers():
            try:
                head = self._client.head_object(**self._named(name))
            except ClientError as error:
                if _code(error) not in _MISSING:
                    raise
                self._client.head_bucket(Bucket=self._settings.bucket)  # else all of it is missing
                return None
        noted = head["Metadata"].get(_AT)
        placed_at = head["LastModified"]
        at = datetime.fromisoformat(noted) if noted else placed_at
        return Found(size_bytes=head["ContentLength"], at=at, placed_at_s=placed_at.timestamp())

    def list(self, prefix: str) -> Iterator[str]:
        """Walk through pages of names."""
        above = len(self._settings.prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._settings.bucket, Prefix=self._settings.prefix + prefix
        )
        with self._answers():
            for page in pages:
                yield from (each["Key"][above:] for each in page.get("Contents", ()))

    def delete(self, name: str) -> None:
        """Delete an object, and its copy on this machine."""
        self._cache.drop(name)
        with self._answers():
            self._client.delete_object(**self._named(name))

    def keeps_versions(self) -> bool:
        """Whether what is deleted stays as a version; False too where that is not told."""
        with suppress(ResourceError), self._answers():
            found = self._client.get_bucket_versioning(Bucket=self._settings.bucket)
            return bool(found.get("Status") == "Enabled")
        return False

    def _upload(self, name: str, part: Part, at: datetime, **condition: str) -> bool:
        """Put a part; False where the condition does not hold."""
        whole = part.size_bytes <= self._multipart_bytes
        put = self._put_whole if whole else self._put_in_parts
        try:
            _again(lambda: put(name, part, at, condition), _ConflictError)
            return True
        except ClientError as error:
            if condition and _code(error) in _IS_THERE:
                return False
            raise

    def _put_whole(self, name: str, part: Part, at: datetime, condition: dict[str, str]) -> None:
        digest = base64.b64encode(bytes.fromhex(part.sha256)).decode()
        with _conflicts(), part.path.open("rb") as content:
            self._client.put_object(
                **self._named(name), **condition, Body=content, ChecksumSHA256=digest, Metadata={_AT: at.isoformat()}
            )

    def _put_in_parts(self, name: str, part: Part, at: datetime, condition: dict[str, str]) -> None:
        begun = self._client.create_multipart_upload(
            **self._named(name), ChecksumAlgorithm="SHA256", Metadata={_AT: at.isoformat()}
        )
        upload = {**self._named(name), "UploadId": begun["UploadId"]}
        try:
            with _conflicts(), part.path.open("rb") as content:
                pieces = iter(lambda: content.read(_PIECE_BYTES), b"")
                sent = [self._put_piece(upload, number, piece) for number, piece in enumerate(pieces, 1)]
                self._client.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": sent})
        except BaseException:
            with suppress(BotoCoreError, ClientError):
                self._client.abort_multipart_upload(**upload)
            raise

    def _put_piece(self, upload: dict[str, str], number: int, content: bytes) -> dict[str, Any]:
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        sent = self._client.upload_part(**upload, PartNumber=number, Body=content, ChecksumSHA256=digest)
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": digest}

    def _fetch(self, name: str) -> bytes:
        try:
            body = self._client.get_object(**self._named(name))["Body"]
        except ClientError as error:
            if _code(error) not in _MISSING:
                raise
            raise FileNotFoundError(name) from error
        try:
            return bytes(body.read())
        except BotoCoreError as error:
            raise _CutError("store: an object broke off") from error

    def _try_conditions(self, where: str) -> None:
        """Put, put again, read and delete a trial object: what is not allowed or not known shows at the start."""
        trial = {**self._named(f"trial/{secrets.token_hex(16)}"), "Body": b"trial"}
        named = {key: trial[key] for key in ("Bucket", "Key")}
        self._client.put_object(**trial, IfNoneMatch="*")
        try:
            self._client.put_object(**trial, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) not in _IS_THERE:
                raise
        else:
            raise ConfigError(f"spool.store: {where}: {_sentence('NotImplemented')}")
        finally:
            self._client.get_object(**named)["Body"].read()
            self._client.delete_object(**named)

    def _abort_abandoned(self) -> None:
        before = datetime.now(UTC) - _ABANDONED_AFTER
        bucket, prefix = self._settings.bucket, self._settings.prefix
        with self._answers():
            found = self._client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", ())
            for each in found:
                if each["Initiated"] < before:
                    self._client.abort_multipart_upload(Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"])

    def _named(self, name: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._settings.prefix + name}

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Translate what the service says, or that it says nothing; a missing object is left to the caller."""
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code in (*_REFUSED, *_NOT_IMPLEMENTED, "NoSuchBucket", "404", "PermanentRedirect", "301"):
                raise _RefusedError(code) from error
            raise ResourceError(f"store: the object store answered {code}") from error
        except SSLError as error:
            raise _RefusedError("certificate") from error
        except BotoCoreError as error:
            raise ResourceError("store: the object store cannot be reached") from error


class _RefusedError(ResourceError):
    """A definite answer: at the start it is the operator's to mend; later the store is waited for all the same."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"store: {_sentence(code)}")


class _ConflictError(ResourceError):
    """Two conditional puts met; one of them may have won."""


class _CutError(ResourceError):
    """An object did not come to its end."""


def _sentence(code: str) -> str:
    match code:
        case "NoSuchBucket" | "404":
            return "there is no such bucket"
        case "PermanentRedirect" | "301":
            return "is in another region; write spool.store.region"
        case "certificate":
            return "no TLS with a certificate that is trusted; write spool.store.ca"
        case "NotImplemented" | "501":
            return "it ignores If-None-Match; a service with conditional writes is needed"
        case _:
            return f"access denied ({code}): the key needs GetObject, PutObject, DeleteObject and ListBucket"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "nothing"))


@contextmanager
def _conflicts() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if _code(error) in _AT_THE_SAME_TIME:
            raise _ConflictError("store: others put the same object") from error
        raise


def _again(request: Callable[[], T], fault: type[Exception]) -> T:
    """Repeat what the library does not, with pauses of random length."""
    for number in range(1, _TRIES):
        with suppress(fault):
            return request()
        time.sleep(random.uniform(0, 0.1 * 2**number))  # noqa: S311 - a pause is no secret
    return request()


def _client(settings: Settings, connections: int) -> Any:
    session = boto3.session.Session(**_credentials(settings.credentials))
    return session.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        verify=str(settings.ca) if settings.ca else True,
        config=Config(
            connect_timeout=min(_CONNECT_S, settings.timeout_s),
            read_timeout=settings.timeout_s,
            retries={"mode": "standard", "total_max_attempts": _TRIES},  # with jitter
            max_pool_connections=2 * connections,
            proxies={},  # of the environment, which nobody looks at
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
            request_checksum_calculation="when_required",  # of requests without an object, which many services refuse
            response_checksum_validation="when_required",  # every byte is checked by its name
        ),
    )


def _credentials(file: Path) -> dict[str, str]:
    """Read the file that Amazon's own tools read.

    Raises
    ------
    ConfigError : it cannot be read, others may read it, or it holds no key.
    """
    path = permissions.private_key(file, "file of credentials")
    found = ConfigParser(interpolation=None)
    try:
        found.read_string(path.read_text())
        section = found["default"]
        return {key: section[key] for key in ("aws_access_key_id", "aws_secret_access_key")}
    except OSError as error:
        raise ConfigError(f"spool.store.credentials: {file}: cannot be read: {error.strerror}") from error
    except (IniError, KeyError, UnicodeDecodeError) as error:
        wanted = "aws_access_key_id and aws_secret_access_key in a section [default]"
        raise ConfigError(f"spool.store.credentials: {file}: does not have {wanted}") from error
