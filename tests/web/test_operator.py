"""An evening at the page, in a real browser: the archive stops, somebody is told, Retry is clicked; no shell."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cxr_node.dicom import from_picture
from cxr_node.web.identity.users import Role, UserFile
from tests.pacs.peers import Node, Orthanc
from tests.patience import NODE_S, eventually, wait_until
from tests.processes import answers, free_port, run
from tests.viewer.browser import chromium
from tests.web.site import PASSWORDS
from tests.web.test_accessible import violations

pytestmark = [pytest.mark.viewer, pytest.mark.pacs, pytest.mark.timeout(900)]

IMAGE = Path(__file__).parents[2] / "cxr_node" / "demo_radiographs" / "opacity-1.jpg"
SOON = {"first_delay_s": 0.5, "max_delay_s": 1, "max_age_h": 10 / 3600}
"""A delivery is DEAD ten seconds after its first failure."""
TOLD_WITHIN_S = 60.0
"""Of the first failure, for an archive that may be down for five seconds."""


class Clicks:
    """A browser's tab that counts what its user clicks."""

    def __init__(self, tab: Any, address: str) -> None:
        self.tab, self.address, self.number = tab, address, 0
        tab.set_default_timeout(NODE_S * 1000)

    def open(self, path: str = "/") -> None:
        """Type an address."""
        self.tab.goto(f"{self.address}{path}")

    def click(self, role: str, name: str) -> None:
        """Click the first button or link of that name."""
        self.tab.get_by_role(role, name=name).first.click()
        self.number += 1

    def log_in(self, name: str, password: str) -> None:
        """Fill in the form."""
        self.open("/login")
        self.tab.get_by_label("Name").fill(name)
        self.tab.get_by_label("Password").fill(password)
        self.tab.get_by_role("button", name="Log in").click()

    def text(self) -> str:
        """What a person reads."""
        return str(self.tab.locator("main").inner_text())


@contextmanager
def sink() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that keeps what is posted to it."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def evening(tmp_path: Path) -> Iterator[tuple[Node, Orthanc, str, list[str]]]:
    users = UserFile(tmp_path / "users.yaml")
    for (name, password), role in zip(PASSWORDS.items(), (Role.OPERATOR, Role.VIEWER), strict=True):
        users.add(name, role, password)
    with sink() as (url, received), Orthanc(tmp_path / "orthanc") as archive:
        secret = tmp_path / "alerts"
        secret.touch(0o600)
        secret.write_text(url)
        port = free_port()
        node = Node(
            tmp_path / "node",
            [{"name": "pacs", "address": archive.address}],
            web={"port": port, "users": str(users.path)},
            alerts={"to": [str(secret)], "destination_down_s": 5},
            delivery=SOON,
            study={"quiet_s": 0.5},
        )
        with node:
            wait_until(lambda: answers(port), "the page answers")
            yield node, archive, f"http://127.0.0.1:{port}", received


def sent(node: Node) -> None:
    """A radiograph comes in."""
    ended = run(sys.executable, "-m", "cxr_node", "send", IMAGE, "--to", f"CXR_NODE@127.0.0.1:{node.port}")
    assert ended.returncode == 0, ended.stderr


def test_an_archive_stops_and_comes_back(evening: tuple[Node, Orthanc, str, list[str]]) -> None:
    node, archive, address, received = evening
    archive.stop()
    sent(node)
    with chromium() as browser:
        page = Clicks(browser.new_page(), address)
        page.log_in("olga", PASSWORDS["olga"])
        assert eventually(lambda: any("pacs" in told for told in received), NODE_S), "somebody is told"
        down_since = node.json("status", "--json")[0]["health"]["pacs"]["down_since"]
        assert datetime.now(UTC) - datetime.fromisoformat(down_since) < timedelta(seconds=TOLD_WITHIN_S)
        page.tab.locator("main").get_by_text("failing").first.wait_for()
        page.tab.locator("li.tile", has=page.tab.get_by_text("DEAD", exact=True)).get_by_text(
            "1", exact=True
        ).wait_for()
        archive.start()
        archive.wait_ready()
        page.number = 0
        page.click("link", "DEAD")
        page.click("button", "Retry all of this reason")
        page.tab.get_by_role("status").wait_for()
        assert page.number <= 4
        wait_until(lambda: archive.count() == 3, "the results are in the archive")
        page.open()
        page.tab.locator("li.tile", has=page.tab.get_by_text("DELIVERED", exact=True)).get_by_text(
            "1", exact=True
        ).wait_for()
        assert eventually(lambda: sum("pacs" in told for told in received) >= 2, NODE_S), "and told that it is over"


def test_try_takes_what_people_have(evening: tuple[Node, Orthanc, str, list[str]], tmp_path: Path) -> None:
    _, archive, address, _ = evening
    picture, broken, huge = tmp_path / "chest.png", tmp_path / "broken.dcm", tmp_path / "huge.dcm"
    with Image.open(IMAGE) as drawn:
        drawn.save(picture)
    dicom = tmp_path / "chest.dcm"
    dicom.write_bytes(from_picture.wrap(IMAGE, PatientAge="003Y", ViewPosition="AP", PatientName="Canary^Tried"))
    broken.write_bytes(dicom.read_bytes()[:3000])
    with huge.open("wb") as file:
        file.write(dicom.read_bytes()[:3000])
        file.truncate(300 * 1024**2)
    with chromium() as browser:
        page = Clicks(browser.new_page(), address)
        page.log_in("vito", PASSWORDS["vito"])
        page.click("link", "Try")
        assert not violations(page.tab)
        page.tab.get_by_label("Files").set_input_files([dicom, picture, IMAGE, broken, huge])
        page.click("button", "Judge")
        page.tab.get_by_role("heading", name="5 files judged").wait_for()
        text = page.text()
        assert text.count("PNEUMONIA SUSPECTED") >= 2 and "larger than 256 MiB" in text and "Canary" not in text
        assert not violations(page.tab)
        with page.tab.expect_download() as download:
            page.tab.get_by_role("link", name="PDF").first.click()
        assert Path(download.value.path()).read_bytes().startswith(b"%PDF")
    assert archive.count() == 0, "nothing of it goes anywhere"


def test_hold_and_release(evening: tuple[Node, Orthanc, str, list[str]]) -> None:
    node, archive, address, _ = evening
    with chromium() as browser:
        page = Clicks(browser.new_page(), address)
        page.log_in("olga", PASSWORDS["olga"])
        page.click("button", "Hold")
        page.tab.get_by_text("is held since").first.wait_for()
        sent(node)
        page.open("/queue?stage=held")
        while "#1" not in page.text():
            page.open("/queue?stage=held")
        assert archive.count() == 0
        page.click("button", "Release")
        wait_until(lambda: archive.count() == 3, "what was held is sent")
    story = node.json("trace", "#1", "--json")[0]
    assert all(one["attempts"] == 1 for one in story["deliveries"]), "holding uses no attempt"


def test_who_may_do_what(evening: tuple[Node, Orthanc, str, list[str]]) -> None:
    _, _, address, _ = evening
    with chromium() as browser:
        page = Clicks(browser.new_page(), address)
        page.log_in("vito", "a wrong password")
        page.tab.get_by_role("alert").get_by_text("wrong").wait_for()
        page.log_in("vito", PASSWORDS["vito"])
        page.tab.get_by_role("heading", name="Today").wait_for()
        for path in ("/", "/queue?stage=dead", "/study"):
            page.open(path)
            assert not page.tab.get_by_role("button", name="Hold").count()
            assert not page.tab.get_by_role("button", name="Retry").count()
        answer = page.tab.evaluate(
            "async () => (await fetch('/queue', {method: 'POST', body: "
            "new URLSearchParams({what: 'hold', destination: 'pacs'})})).status"
        )
        assert answer in (403, 405, 422), "the server refuses, not only the page"
