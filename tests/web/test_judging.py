"""The process that holds the network: what a file does to it costs that file, and never the page."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cxr_node.config.page import TrySection
from cxr_node.web.judging import client as client_module
from cxr_node.web.judging.client import Judge, Judged
from cxr_node.web.judging.frames import Wanted
from cxr_node.web.problem import Problem
from tests import builders
from tests.node import workplace
from tests.patience import wait_until
from tests.web.asking import DICOM, LATERAL, Page, judge_of, lives, memory_mb, post, scratch_files

MIB = 1024 * 1024
FORBIDDEN = ("numpy", "scipy", "pydicom", "highdicom", "pynetdicom", "openvino", "torch", "PIL", "matplotlib")
"""Libraries whose memory a page without the network does not need, and whose faults it does not share."""
MAX_MB = 150


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("judging"), timeout_s=20, max_files=2) as page:
        yield page


@pytest.fixture
def client(page: Page) -> Iterator[httpx.Client]:
    with page.client() as client:
        yield client


def judge(page: Page) -> int:
    """The process with the network, which has just judged a file."""
    with page.client() as client:  # on a machine that has much else to do its start may outlast the limit
        wait_until(lambda: post(client, LATERAL).status_code == 200, "a file is judged")
    found = judge_of(page.process.pid)
    assert found is not None
    return found


@contextmanager
def posting(page: Page, content: bytes, **more: Any) -> Iterator[list[httpx.Response]]:
    """A request that goes on while the block runs; its answer is there afterwards."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with page.client() as client:
            answers.append(post(client, content, **more))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        thread.join()


def test_the_page_imports_no_library_of_images_or_networks() -> None:
    code = (
        "import sys; from cxr_node.web import server; from cxr_node.model import profile\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_killed_process_costs_the_one_file(page: Page, client: httpx.Client) -> None:
    pid = judge(page)
    os.kill(pid, signal.SIGSTOP)
    with posting(page, DICOM, params={"explain": "true"}) as answers:
        wait_until(lambda: scratch_files(page.process.pid, page.spool) == 2, "the file waits for its verdict")
        os.kill(pid, signal.SIGKILL)
    assert (answers[0].status_code, answers[0].json()["code"]) == (500, "judge-ended")
    assert post(client, DICOM).status_code == 200
    assert judge_of(page.process.pid) != pid
    wait_until(lambda: scratch_files(page.process.pid, page.spool) == 0, "nothing is left of the files")


def test_one_that_dies_between_two_files_costs_none(page: Page, client: httpx.Client) -> None:
    pid = judge(page)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not lives(pid), "it is dead")
    assert post(client, LATERAL).status_code == 200


def test_a_file_that_takes_too_long_is_given_up(page: Page, client: httpx.Client) -> None:
    pid = judge(page)
    os.kill(pid, signal.SIGSTOP)
    told = post(client, DICOM)
    assert (told.status_code, told.json()["code"]) == (504, "timeout")
    assert "web.try.timeout_s" in told.json()["detail"]
    assert not lives(pid)
    assert post(client, LATERAL).status_code == 200


def test_a_file_that_takes_too_much_memory_is_given_up(page: Page, client: httpx.Client) -> None:
    pid = judge(page)
    allowed = int(memory_mb(pid, "VmData") + 1) * MIB
    resource.prlimit(pid, resource.RLIMIT_DATA, (allowed, allowed))
    large = builders.part10(builders.radiograph(1, stored=np.zeros((8000, 8000), np.uint16) + 1000))  # 128 MB
    told = post(client, large)
    assert (told.status_code, told.json()["code"]) == (422, "memory")
    assert not lives(pid)
    assert post(client, LATERAL).status_code == 200


def test_requests_beyond_the_places_are_sent_away(page: Page) -> None:
    pid = judge(page)
    os.kill(pid, signal.SIGSTOP)
    try:
        waiting = [posting(page, LATERAL) for _ in range(8)]
        lists = [each.__enter__() for each in waiting]
        wait_until(lambda: scratch_files(page.process.pid, page.spool) == 8, "all places are taken")
        with page.client() as client:
            refused = post(client, LATERAL)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/").status_code == 200, "the page goes on"
    finally:
        os.kill(pid, signal.SIGCONT)
        for each in waiting:
            each.__exit__(None, None, None)
    assert [each[0].status_code for each in lists] == [200] * 8


def test_an_endless_upload_takes_no_memory(page: Page, client: httpx.Client) -> None:
    judge(page)
    before = memory_mb(page.process.pid)
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(128) + b"DICM"
        for _ in range(300):
            sent += MIB
            yield bytes(MIB)
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    told = client.post("/api/v1/predict", headers=headers, content=pieces())
    assert (told.status_code, told.json()["code"]) == (413, "too-large")
    assert sent >= 256 * MIB
    with socket.create_connection(("127.0.0.1", page.port), 60) as declared:  # not a byte of it is waited for
        declared.sendall(
            b"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 314572800\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        assert declared.recv(1024).startswith(b"HTTP/1.1 413 ")
    after = memory_mb(page.process.pid)
    assert after < MAX_MB and after - before < 30, f"{before:.0f} MB before, {after:.0f} MB after"
    wait_until(lambda: scratch_files(page.process.pid, page.spool) == 0, "nothing is left of the file")


def test_the_network_goes_when_nobody_needs_it(tmp_path: Path) -> None:
    with Page(tmp_path, idle_unload_s=0.1) as page:
        with page.client() as client:
            assert post(client, LATERAL).status_code == 200
            wait_until(lambda: judge_of(page.process.pid) is None, "the network is unloaded")
            assert post(client, LATERAL).status_code == 200
        assert memory_mb(page.process.pid) < MAX_MB


HANGS = """
import faulthandler, os, sys, time
times, begun = int(sys.argv[1]), sys.argv[2]
with open(begun, "a") as file:
    file.write("x")
if os.stat(begun).st_size <= times:
    faulthandler.enable()
    time.sleep(600)
os.execv(sys.executable, [sys.executable, "-m", "cxr_node.web.judging.judge", *sys.argv[3:]])
"""
"""A child that hangs while it loads the network, as often as its first word says."""


def ask_one_that_hangs(times: int, limit_s: float, folder: Path, patch: pytest.MonkeyPatch) -> Judged:
    patch.setattr(client_module, "_COMMAND", (sys.executable, "-c", HANGS, str(times), str(folder / "begun")))
    patch.setattr(client_module, "_START_S", limit_s)
    judge = Judge(workplace.config(folder / "spool"), TrySection())
    (folder / "lateral.dcm").write_bytes(LATERAL)
    try:
        with (folder / "lateral.dcm").open("rb") as file:
            return asyncio.run(judge.judge(file, Wanted.NOTHING, picture=False))
    finally:
        judge.close()


def test_one_that_hangs_while_it_loads_is_ended_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Problem) as caught:
        ask_one_that_hangs(2, 2.0, tmp_path, monkeypatch)
    assert (caught.value.status, caught.value.code) == (503, "model")
    assert caught.value.headers == {"Retry-After": "5"}
    said = capfd.readouterr().err
    assert said.count("Fatal Python error: Aborted") == said.count('File "<string>", line 8') == 2


def test_the_next_one_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ask_one_that_hangs(1, 15.0, tmp_path, monkeypatch)
    assert told.prediction["reason"] == "view-not-frontal"


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    with Page(tmp_path) as page:
        pid = judge(page)
        page.kill()
        wait_until(lambda: not lives(pid), "the process with the network is gone")


def test_a_profile_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    page = Page(tmp_path)
    file = tmp_path / "node.yaml"
    file.write_text(file.read_text().replace("threads: 1", f"threads: 1\n  profile: {tmp_path}"))
    with page, page.client() as client:
        told = post(client, LATERAL)
        assert (told.status_code, told.json()["code"]) == (503, "model")
        assert client.get("/").status_code == 200
