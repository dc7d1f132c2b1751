"""Local users and API keys: one file that `cxr-node user` writes, read again whenever it changes.

Passwords are kept as Argon2id hashes (RFC 9106) with OWASP's small-memory parameters; keys are 256 random bits, so a
plain SHA-256 of them is enough. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import Field, ValidationError

from cxr_node.config import strict_yaml
from cxr_node.config.section import Section
from cxr_node.errors import ConfigError, DataError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_ONE_AT_A_TIME = threading.Lock()
"""A hash takes 19 MiB; a hundred logins at once must not take a hundred times that."""
MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_BYTES = 1024
Kind = TypeVar("Kind", bound=Section)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")]


class Role(StrEnum):
    """What a person may do on the page."""

    VIEWER = "viewer"  # looks, and tries files
    READER = "reader"  # a radiologist: also says whether an answer is right
    OPERATOR = "operator"  # also retries, holds, releases, sets aside


class Scope(StrEnum):
    """What a program may do with its key."""

    PREDICT = "predict"
    STATS = "stats"
    METRICS = "metrics"


class User(Section):
    """A person with a password."""

    name: Name
    role: Role
    password: str
    """Argon2id, in PHC string format."""


class Key(Section):
    """A program's API key."""

    name: Name
    scopes: tuple[Scope, ...]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _File(Section):
    users: tuple[User, ...] = ()
    keys: tuple[Key, ...] = ()


class UserFile:
    """The users of one node; threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, int] | None = None
        self._content = _File()

    def users(self) -> tuple[User, ...]:
        """All of them.

        Raises
        ------
        ConfigError : the file cannot be read, others may read it, or its content is wrong.
        """
        return self._current().users

    def api_keys(self) -> tuple[Key, ...]:
        """All of them. Raises as `users` does."""
        return self._current().keys

    def user(self, name: str) -> User | None:
        """The user of a name. Raises as `users` does."""
        return next((each for each in self.users() if each.name == name), None)

    def with_password(self, name: str, password: str) -> User | None:
        """The user whose password it is. An unknown name takes as long as a known one. Raises as `users` does."""
        user = self.user(name)
        with _ONE_AT_A_TIME:
            try:
                _HASHER.verify(user.password if user else _decoy(), password.encode()[: MAX_PASSWORD_BYTES + 1])
            except (VerificationError, InvalidHashError):
                return None
        return user

    def with_key(self, text: str) -> Key | None:
        """The key that a program shows. Raises as `users` does."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        return next((each for each in self.api_keys() if hmac.compare_digest(each.sha256, digest)), None)

    def add(self, name: str, role: Role, password: str) -> None:
        """Add a user, or give one another role and password.

        Raises
        ------
        DataError : the password is too short or too long, or the name is malformed.
        """
        if not len(password) >= MIN_PASSWORD_CHARACTERS or len(password.encode()) > MAX_PASSWORD_BYTES:
            raise DataError(f"a password has at least {MIN_PASSWORD_CHARACTERS} characters")
        user = _valid(User, name=name, role=role, password=_HASHER.hash(password))
        with self._changing() as content:
            others = tuple(each for each in content.users if each.name != name)
            self._write(content.model_copy(update={"users": (*others, user)}))

    def add_key(self, name: str, scopes: tuple[Scope, ...]) -> str:
        """Add a key, or replace one; its text is never seen again.

        Raises
        ------
        DataError : the name is malformed.
        """
        text = secrets.token_urlsafe(32)
        key = _valid(Key, name=name, scopes=scopes, sha256=hashlib.sha256(text.encode()).hexdigest())
        with self._changing() as content:
            others = tuple(each for each in content.keys if each.name != name)
            self._write(content.model_copy(update={"keys": (*others, key)}))
        return text

    def remove(self, name: str) -> None:
        """Remove the user and the key of a name; their sessions end with the next request.

        Raises
        ------
        DataError : there is none.
        """
        with self._changing() as content:
            users = tuple(each for each in content.users if each.name != name)
            keys = tuple(each for each in content.keys if each.name != name)
            if len(users) + len(keys) == len(content.users) + len(content.keys):
                raise DataError(f"{self.path}: has no user and no key named {name}")
            self._write(_File(users=users, keys=keys))

    def _current(self) -> _File:
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if (state := (found.st_mtime_ns, found.st_ino)) != self._read_at:
                    if stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                        raise ConfigError(f"{self.path}: others may read it; chmod 0600 {self.path}")
                    self._content, self._read_at = _parsed(file.read(), self.path), state
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be read ({error.strerror}); `cxr-node user add NAME --role operator` writes it"
            ) from error
        return self._content

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with (self.path.parent / f".{self.path.name}.lock").open("w") as lock:
                flock(lock, LOCK_EX)
                yield self._current() if self.path.exists() else _File()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _write(self, content: _File) -> None:
        hidden = self.path.with_name(f".{self.path.name}.new")
        hidden.unlink(missing_ok=True)
        owner = self.path.stat() if self.path.exists() else self.path.parent.stat()
        with os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            if os.geteuid() == 0:  # `sudo cxr-node user`: the node's account reads it
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            yaml.safe_dump(content.model_dump(mode="json"), file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(self.path)


def _parsed(text: bytes, path: Path) -> _File:
    try:
        return _File.model_validate(strict_yaml.load(text.decode()) or {})
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError, strict_yaml.TwiceError) as error:
        raise ConfigError(f"{path}: is not what `cxr-node user` writes; remove it and add the users again") from error


def _valid(kind: type[Kind], **values: object) -> Kind:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise DataError("a name has 1 to 64 letters, digits and . _ @ -") from error


@cache
def _decoy() -> str:
    """A hash that no password has, to spend the time of a check on."""
    return _HASHER.hash(secrets.token_urlsafe(32))
