"""`cxr-node demo --web`: one command to a page, whose node has judged six radiographs and takes the visitor's own."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import httpx

from tests.patience import NODE_S, wait_until
from tests.processes import STOP_S, Program
from tests.web.asking import JPEG, post

_ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/try")


class Demo(Program):
    """The command, which says where the page is."""

    def __init__(self, folder: Path) -> None:
        command = (sys.executable, "-m", "cxr_node", "demo", "--web", "--no-browser", "--out", folder / "out")
        super().__init__(folder, *command, name="demo")

    @property
    def address(self) -> str | None:
        """Of the page; None until it is said."""
        found = _ADDRESS.search(self.said())
        return found[1] if found else None

    def is_ready(self) -> bool:
        return self.address is not None


def test_one_command_leads_to_the_page(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        assert demo.address is not None
        with httpx.Client(base_url=demo.address, timeout=NODE_S) as visitor:
            assert visitor.get("/health/ready").status_code == 200
            counted = visitor.get("/api/v1/stats").json()["node"]
            assert counted["verdicts"] == {"NORMAL": 3, "PNEUMONIA": 2, "UNCERTAIN": 1}
            assert "Judge the six drawn ones" in visitor.get("/try").text
            assert post(visitor, JPEG).json()["verdict"] == "PNEUMONIA"
        assert (tmp_path / "out" / "index.html").exists()
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(STOP_S) == 0
        wait_until(lambda: not _answers(demo), "the page is gone")


def _answers(demo: Demo) -> bool:
    try:
        httpx.get(f"{demo.address}/health/live")
    except httpx.HTTPError:
        return False
    return True
