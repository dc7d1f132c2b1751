"""Object stores for tests: moto in this process, and SeaweedFS as a real server where it is installed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

from cxr_node.config.storage import S3Store as Settings
from cxr_node.node.spool.cache import Cache
from cxr_node.node.spool.part import Part
from cxr_node.node.spool.s3_store import S3Store
from cxr_node.node.spool.spool import Spool
from tests.node.stores import Folder
from tests.patience import eventually
from tests.processes import free_port

KEY, SECRET, BUCKET = "node", "not-a-secret", "node"
_NUMBERS = itertools.count(1)
WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))


class Service(Protocol):
    """A server of buckets."""

    url: str

    def stop(self) -> None: ...

    @contextmanager
    def away(self) -> Iterator[None]: ...


class Moto:
    """In memory; its conditions hold, its checksums and keys are not checked."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._start()

    def _start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens."""
        self._server.stop()
        yield
        self._start()


class SeaweedFS:
    """A server of its own."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """`within` is a command that runs another: of a machine of its own (tests/chaos/network.py)."""
        assert WEED is not None
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        actions = ["Admin", "Read", "Write", "List"]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [{"name": KEY, "credentials": credentials, "actions": actions}]}))
        port, *others = (free_port() for _ in range(4))
        self.url = f"http://{host}:{port}"
        named = [f"-{role}.port={each}" for role, each in zip(("master", "volume", "filer"), others, strict=True)]
        numbers = {role: free_port() for role in ("master", "volume", "filer", "s3")}
        grpc = [f"-{role}.port.grpc={number}" for role, number in numbers.items()]
        master, _, filer = others
        self._shell = [f"-master={host}:{master}.{numbers['master']}", f"-filer={host}:{filer}.{numbers['filer']}"]
        served = [WEED, "server", f"-dir={folder}", "-s3", f"-s3.port={port}", f"-s3.config={config}"]
        command = [*within, *served, *named, *grpc]
        command += [
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            f"-ip={host}",
            f"-ip.bind={host}",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=64",
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if not eventually(self._stores):
            self.stop()
            raise AssertionError(f"SeaweedFS does not start: {(folder / 'log').read_text()[-2000:]}")

    def _stores(self) -> bool:
        try:
            client = raw_client(self.url)
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"first")
            return True
        except (BotoCoreError, ClientError):
            return False

    @property
    def pid(self) -> int:
        """Of its one process."""
        return self._process.pid

    def sync(self) -> None:
        """Let it answer when the bytes are on its disk."""
        assert WEED is not None
        words = "fs.configure -locationPrefix=/buckets/ -fsync -apply\n"
        subprocess.run([WEED, "shell", *self._shell], input=words, text=True, check=True, capture_output=True)

    def stop(self) -> None:
        self._process.kill()  # it takes minutes to end otherwise
        self._process.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It hangs."""
        os.kill(self._process.pid, signal.SIGSTOP)
        yield
        os.kill(self._process.pid, signal.SIGCONT)


class Bucket:
    """A part of a bucket, as the contract suite wants it."""

    kind = "s3"

    def __init__(self, place: Path, service: Service, multipart_bytes: int = 6_000_000) -> None:
        self.service = service
        self.local = place / "local"
        self.local.mkdir(mode=0o700)
        self.client = raw_client(service.url)
        self.prefix = f"node-{next(_NUMBERS)}/"
        with suppress(self.client.exceptions.BucketAlreadyOwnedByYou, self.client.exceptions.BucketAlreadyExists):
            self.client.create_bucket(Bucket=BUCKET)
        self._credentials = credentials_file(place / "credentials")
        self._multipart_bytes = multipart_bytes

    def settings(self, **more: Any) -> Settings:
        """How a node is configured for it."""
        values = {"endpoint": self.service.url, "bucket": BUCKET, "credentials": self._credentials, "timeout_s": 1.0}
        return Settings(**values | {"prefix": self.prefix} | more)

    def configured(self) -> dict[str, Any]:
        """The key `spool.store`."""
        return self.settings().model_dump(mode="json")

    def open(self, **more: Any) -> S3Store:
        """As one more machine sees it."""
        cache = self.local / f"cache-{next(_NUMBERS)}"
        return S3Store(self.settings(**more), Cache(cache, 64_000_000), self._multipart_bytes)

    def spool(self) -> Spool:
        """A node's spool on it."""
        return Spool(self.local, store=self.open())

    def part(self, content: bytes) -> Part:
        """A part of that content."""
        part = Part(self.local, is_final=False)
        part.write(content)
        return part

    def damage(self, name: str, content: bytes) -> None:
        """Change what is stored, past the store."""
        self.client.put_object(Bucket=BUCKET, Key=self.prefix + name, Body=content)

    def names(self) -> list[str]:
        """All that is there, past the store."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix).get("Contents", ())
        return sorted(each["Key"].removeprefix(self.prefix) for each in found)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not there for a while."""
        with self.service.away():
            yield


Place = Folder | Bucket


def credentials_file(file: Path, secret: str = SECRET) -> Path:
    file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n")
    file.chmod(0o600)
    return file


def raw_client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(proxies={}, s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=5),
    )
