"""docs/demo.png and the pictures of the page in docs/pictures, taken anew: `python -m tests.web.pictures`.

The demo; then a node with its page, an archive that takes everything, one that nobody runs, and rooms that send. Drawn
radiographs only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from cxr_node import resources
from cxr_node.dicom import from_picture
from cxr_node.tools.trial_node import Recorder
from tests.node.peers import nobody
from tests.pacs.peers import Node
from tests.patience import wait_until
from tests.processes import answers, free_port, run
from tests.viewer.browser import chromium

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SIZE = {"width": 1280, "height": 860}
DEMO_SIZE = {"width": 880, "height": 900}
ROOMS = ("DX_ROOM_1", "DX_ROOM_2", "CR_WARD_3")


def main() -> None:
    """Run the node, and take the pictures."""
    with tempfile.TemporaryDirectory() as scratch, Recorder(None, "PACS") as pacs:
        folder, port = Path(scratch), free_port()
        destinations = [
            {"name": "pacs", "address": str(pacs.address)},
            {"name": "teleradiology", "address": str(nobody()), "send": ["key-object"]},
        ]
        delivery = {"first_delay_s": 0.5, "max_delay_s": 1, "max_age_h": 5 / 3600}
        alerts = {"destination_down_s": 2}
        with Node(folder, destinations, web={"port": port}, alerts=alerts, delivery=delivery) as node:
            _send(node, folder)
            wait_until(lambda: answers(port), "the page answers")
            with chromium() as browser:
                _take_demo(browser, folder / "demo")
                tab = browser.new_page(viewport=SIZE, color_scheme="light")
                tab.set_default_timeout(300_000)
                _take(tab, f"http://127.0.0.1:{port}")


def _send(node: Node, folder: Path) -> None:
    for number, picture in enumerate(sorted(resources.DRAWN.glob("*.jpg"))):
        age, file = "045Y" if number == 2 else "003Y", folder / f"{number}.dcm"
        file.write_bytes(from_picture.wrap(picture, PatientAge=age, ViewPosition="AP"))
        words = ("send", file, "--to", f"CXR_NODE@127.0.0.1:{node.port}", "--calling", ROOMS[number % len(ROOMS)])
        ended = run(sys.executable, "-m", "cxr_node", *words)
        assert ended.returncode == 0, ended.stderr
    wait_until(lambda: not node.counts()["RECEIVED"] and node.counts()["DEAD"], "they are judged")


def _take_demo(browser: Any, folder: Path) -> None:
    ended = run(sys.executable, "-m", "cxr_node", "demo", "--out", folder)
    assert ended.returncode == 0, ended.stderr
    tab = browser.new_page(viewport=DEMO_SIZE, color_scheme="light")
    tab.goto((folder / "index.html").as_uri())
    tab.screenshot(path=PICTURES.parent / "demo.png", full_page=True)


def _take(tab: Any, address: str) -> None:
    tab.goto(f"{address}/")
    tab.locator("[data-rule=destination-down]").wait_for()
    tab.screenshot(path=PICTURES / "page-today.png")
    tab.goto(f"{address}/queue?stage=dead")
    tab.screenshot(path=PICTURES / "page-queue.png", full_page=True)
    tab.goto(f"{address}/quality?days=7")
    tab.screenshot(path=PICTURES / "page-quality.png", full_page=True)
    tab.goto(f"{address}/try")
    tab.get_by_role("button", name="Judge the six drawn ones").click()
    tab.get_by_role("heading", name="2").first.wait_for()
    tab.wait_for_load_state("networkidle")
    tab.screenshot(path=PICTURES / "page-try.png")


if __name__ == "__main__":
    main()
