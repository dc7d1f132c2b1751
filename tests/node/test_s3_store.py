"""A bucket as the store: how it is asked, what its faults become, and the copies on this machine."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from botocore.exceptions import ClientError, IncompleteReadError

from cxr_node.config import loader
from cxr_node.diagnose import store
from cxr_node.diagnose.thresholds import Verdict
from cxr_node.errors import ConfigError, ResourceError
from cxr_node.node.spool import cache as cache_module
from cxr_node.node.spool import s3_store
from cxr_node.node.spool.cache import Cache
from cxr_node.node.spool.part import Part
from tests.node.buckets import BUCKET, Bucket, Moto, SeaweedFS, credentials_file
from tests.node.stores import NOON, name_of
from tests.processes import free_port

CONTENT = b"not a radiograph" * 1000
NAME = name_of(CONTENT)
LARGE = secrets.token_bytes(13_000_000)
"""Beyond the six megabytes from which these stores put in parts; two pieces of 8 MiB."""


@pytest.fixture
def bucket(tmp_path: Path, moto: Moto) -> Bucket:
    return Bucket(tmp_path, moto)


def put(bucket: Bucket, store: s3_store.S3Store, content: bytes = CONTENT) -> None:
    part = bucket.part(content)
    try:
        store.put(name_of(content), part, NOON)
    finally:
        part.discard()


def answered(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize("service", ["moto", "seaweedfs"])
def test_a_bucket_that_does_what_it_must_is_ready(tmp_path: Path, request: pytest.FixtureRequest, service: str) -> None:
    bucket = Bucket(tmp_path, request.getfixturevalue(service))
    bucket.open().prepare()
    assert bucket.names() == [], "the trial is left"


def test_a_wrong_key_is_one_sentence(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    bucket = Bucket(tmp_path, seaweedfs)
    wrong = credentials_file(tmp_path / "wrong", "another-secret")
    with pytest.raises(ConfigError, match=r"access denied \(SignatureDoesNotMatch\): the key needs GetObject"):
        bucket.open(credentials=wrong).prepare()


def test_a_service_without_conditions_is_one_sentence(bucket: Bucket) -> None:
    store = bucket.open()
    real = store._client.put_object

    def ignoring(**request: Any) -> Any:
        request.pop("IfNoneMatch", None)
        return real(**request)

    ignores = mock.patch.object(store._client, "put_object", ignoring)
    with ignores, pytest.raises(ConfigError, match="it ignores If-None-Match"):
        store.prepare()
    assert bucket.names() == []


@pytest.mark.parametrize("command", ["receive", "work", "deliver"])
def test_a_bucket_that_is_not_there_ends_with_78(bucket: Bucket, tmp_path: Path, command: str) -> None:
    store = bucket.configured() | {"bucket": "nowhere"}
    file = tmp_path / "node.yaml"
    spool = {"path": str(tmp_path / "spool"), "store": store}
    file.write_text(yaml.safe_dump({"spool": spool, "listen": {"port": 0}, "audit": {"enabled": False}}))
    file.chmod(0o600)
    words = [sys.executable, "-m", "cxr_node", command, "--config", str(file)]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 78, shown.stderr
    sentence = f"cxr-node: spool.store: bucket nowhere at {bucket.service.url}: there is no such bucket"
    assert shown.stderr.splitlines()[-1] == sentence


def test_a_service_that_is_away_at_the_start_is_no_fault_of_the_configuration(tmp_path: Path, moto: Moto) -> None:
    bucket = Bucket(tmp_path, moto)
    with pytest.raises(ResourceError, match="cannot be reached"):
        bucket.open(endpoint=f"http://127.0.0.1:{free_port()}").prepare()


def test_a_service_of_another_authority_is_not_trusted(tmp_path: Path, moto: Moto) -> None:
    """Here one that speaks no TLS at all."""
    bucket = Bucket(tmp_path, moto)
    with pytest.raises(ConfigError, match=r"no TLS with a certificate that is trusted; write spool\.store\.ca"):
        bucket.open(endpoint=moto.url.replace("http:", "https:")).prepare()


def _missing(file: Path) -> None:
    file.unlink()


def _open_to_others(file: Path) -> None:
    file.chmod(0o644)


def _without_key(file: Path) -> None:
    file.write_text("[default]\naws_access_key_id = node\n")


def _no_ini(file: Path) -> None:
    file.write_text("node:secret\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_missing, "cannot be read: No such file"),
        (_open_to_others, "others may read this file of credentials"),
        (_without_key, "does not have aws_access_key_id and aws_secret_access_key in a section"),
        (_no_ini, "does not have aws_access_key_id"),
    ],
)
def test_credentials_that_cannot_be_used(bucket: Bucket, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(bucket.settings().credentials)
    with pytest.raises(ConfigError, match=sentence) as raised:
        bucket.open()
    assert "secret" not in str(raised.value).replace("aws_secret_access_key", "")


@pytest.mark.parametrize("service", ["moto", "seaweedfs"])
def test_a_large_object_goes_in_parts_and_comes_whole(
    tmp_path: Path, request: pytest.FixtureRequest, service: str
) -> None:
    bucket = Bucket(tmp_path, request.getfixturevalue(service))
    store, other = bucket.open(), bucket.open()
    with mock.patch.object(store._client, "upload_part", wraps=store._client.upload_part) as sent:
        put(bucket, store, LARGE)
        assert sent.call_count == 2
        put(bucket, store, LARGE)  # is there: put again without the condition
    assert other.get(name_of(LARGE)) == LARGE
    found = other.exists(name_of(LARGE))
    assert found is not None
    assert (found.size_bytes, found.at) == (len(LARGE), NOON)


def test_an_upload_that_broke_off_leaves_nothing(bucket: Bucket) -> None:
    store = bucket.open()
    real = store._client.upload_part

    def second_fails(**request: Any) -> Any:
        if request["PartNumber"] == 2:
            raise answered("InternalError", 500)
        return real(**request)

    breaks = mock.patch.object(store._client, "upload_part", second_fails)
    with breaks, pytest.raises(ResourceError, match="answered InternalError"):
        put(bucket, store, LARGE)
    assert bucket.names() == []
    assert bucket.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_what_a_dead_writer_began_goes_after_a_day(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    bucket = Bucket(tmp_path, seaweedfs)
    key = bucket.prefix + name_of(LARGE)
    bucket.client.create_multipart_upload(Bucket=BUCKET, Key=key)

    def left() -> int:
        found = bucket.client.list_multipart_uploads(Bucket=BUCKET, Prefix=key)
        return len(found.get("Uploads", []))

    bucket.open().prepare()
    assert left() == 1, "its writer may live"
    with mock.patch.object(s3_store, "_ABANDONED_AFTER", timedelta(seconds=-60)):
        bucket.open().prepare()
    assert left() == 0


def test_bytes_that_changed_on_their_way_are_refused(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    """The service computes the digest that the put names."""
    bucket = Bucket(tmp_path, seaweedfs)
    part = bucket.part(CONTENT)
    part.path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ResourceError, match="answered BadDigest"):
        bucket.open().put(NAME, part, NOON)
    part.discard()
    assert bucket.names() == []


def test_conditional_puts_that_meet_are_tried_again(bucket: Bucket) -> None:
    store = bucket.open()
    real, answers = store._client.put_object, [answered("ConditionalRequestConflict", 409), None]

    def conflict(**request: Any) -> Any:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return real(**request)

    with mock.patch.object(store._client, "put_object", conflict):
        put(bucket, store)
    assert bucket.names() == [NAME]
    conflicts = mock.patch.object(store._client, "put_object", side_effect=answered("ConditionalRequestConflict", 409))
    with conflicts, pytest.raises(ResourceError, match="others put the same object"):
        put(bucket, store)


def test_an_object_that_breaks_off_is_fetched_again(bucket: Bucket) -> None:
    put(bucket, bucket.open())
    store = bucket.open()
    broken = mock.Mock()
    broken.read.side_effect = IncompleteReadError(actual_bytes=1, expected_bytes=2)
    whole = store._client.get_object(Bucket=BUCKET, Key=bucket.prefix + NAME)
    with mock.patch.object(store._client, "get_object", side_effect=[{"Body": broken}, whole]):
        assert store.get(NAME) == CONTENT
    with mock.patch.object(bucket_store := bucket.open(), "_client") as client:
        client.get_object.return_value = {"Body": broken}
        with pytest.raises(ResourceError, match="broke off"):
            bucket_store.get(NAME)


def test_what_was_stored_or_read_last_is_read_from_this_machine(bucket: Bucket) -> None:
    store, other = bucket.open(), bucket.open()
    put(bucket, store)
    assert other.get(NAME) == CONTENT
    with bucket.away():
        assert store.get(NAME) == CONTENT
        assert other.get(NAME) == CONTENT
        with pytest.raises(ResourceError):
            bucket.open().get(NAME)
    store.delete(NAME)
    with pytest.raises(FileNotFoundError):
        store.get(NAME)


def test_a_note_is_never_read_from_a_copy(bucket: Bucket) -> None:
    name, store, other = NAME.replace(".dcm", ".0123456789abcdef.note"), bucket.open(), bucket.open()
    for words in (b"one", b"another"):
        part = bucket.part(words)
        other.put(name, part, NOON, replace=True)
        part.discard()
        assert store.get(name) == words


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1_000_000)
    cache.keep(NAME, CONTENT)
    assert cache.get(NAME) == CONTENT
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(CONTENT[:-1])
    assert cache.get(NAME) is None
    assert entries(tmp_path / "cache") == []


def test_copies_are_bounded_in_bytes(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1_000_000)
    contents = [secrets.token_bytes(100_000) for _ in range(30)]
    for content in contents:
        cache.keep(name_of(content), content)
    cache.trim()
    assert [cache.get(name_of(content)) is not None for content in contents] == [False] * 20 + [True] * 10
    cache.keep(name_of(LARGE), LARGE)
    assert cache.get(name_of(LARGE)) is None, "one that is larger than all of it"


def test_copies_go_with_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything else that is stored: an object that was erased on another machine must not stay here."""
    monkeypatch.setattr(cache_module, "LONGEST_S", 0.1)
    cache = Cache(tmp_path / "cache", 1_000_000)
    cache.keep(NAME, CONTENT)
    deadline = time.monotonic() + 10
    while entries(tmp_path / "cache") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert entries(tmp_path / "cache") == []


def test_a_part_becomes_a_copy_without_being_written_again(tmp_path: Path) -> None:
    cache, part = Cache(tmp_path / "cache", 1_000_000), Part(tmp_path, is_final=False)
    part.write(CONTENT)
    inode = part.path.stat().st_ino
    cache.take(NAME, part)
    part.discard()
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_ino == inode
    assert cache.get(NAME) == CONTENT


def test_a_cache_that_cannot_be_written_keeps_nothing_and_says_nothing(tmp_path: Path) -> None:
    cache, part = Cache(tmp_path / "cache", 1_000_000), Part(tmp_path, is_final=False)
    part.write(CONTENT)
    (tmp_path / "cache").rmdir()
    cache.take(NAME, part)
    cache.keep(NAME, CONTENT)
    assert cache.get(NAME) is None
    part.discard()
    assert entries(tmp_path) == []


def test_an_object_of_another_origin_has_the_time_of_its_put(bucket: Bucket) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    bucket.damage(NAME, CONTENT)
    found = bucket.open().exists(NAME)
    assert found is not None
    assert before < found.at < datetime.now(UTC) + timedelta(seconds=2)


@pytest.mark.parametrize("service", ["moto", "seaweedfs"])
def test_doctor_tries_a_bucket(tmp_path: Path, request: pytest.FixtureRequest, service: str) -> None:
    bucket = Bucket(tmp_path, request.getfixturevalue(service))
    settings = loader.parse({"spool": {"path": str(tmp_path / "spool"), "store": bucket.configured()}}).spool
    results = {each.subject: each for each in store.examine(settings)}
    assert set(results) == {"store", "store put"}
    assert results["store"].figure.startswith(f"bucket {BUCKET} at {bucket.service.url}: a trial was put once")
    assert results["store put"].figure.startswith("20 x 1 MiB: p50 ")
    assert bucket.names() == []
    assert not (tmp_path / "spool").exists()


def test_doctor_warns_of_versions(tmp_path: Path, moto: Moto) -> None:
    bucket = Bucket(tmp_path, moto)
    bucket.client.create_bucket(Bucket="versioned")
    versioning = {"Status": "Enabled"}
    bucket.client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration=versioning)
    given = bucket.configured() | {"bucket": "versioned"}
    settings = loader.parse({"spool": {"path": str(tmp_path / "spool"), "store": given}}).spool
    (result,) = [each for each in store.examine(settings) if each.subject == "store versions"]
    assert (result.verdict, "erased stays" in result.advice) == (Verdict.CHANGE, True)
