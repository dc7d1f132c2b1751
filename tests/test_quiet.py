"""A command's screen holds the command's own words; what libraries have to say stays off it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests import builders

ROOT = Path(__file__).parents[1]


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def damaged(name: str, syntax: str, frame: bytes, folder: Path) -> None:
    dataset = builders.radiograph(1)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    (folder / f"{name}.dcm").write_bytes(builders.part10(dataset, syntax))


def test_classify_shows_rows_and_nothing_of_the_libraries(tmp_path: Path) -> None:
    segments = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (80).to_bytes(4, "little") + bytes(52)
    damaged("a-rle", RLELossless, segments + bytes(40), tmp_path)
    damaged("b-jpeg2000", JPEG2000Lossless, b"\xff\x4f\xff\x51" + bytes(100), tmp_path)
    damaged("c-jpegls", JPEGLSLossless, b"\xff\xd8\xff\xf7" + bytes(100), tmp_path)
    wrong = builders.part10(builders.radiograph(2, PatientName="DOE^JOHN"))
    assert wrong.count(b"ISO_IR ") == 1
    place = wrong.index(b"ISO_IR ")
    (tmp_path / "d-characters.dcm").write_bytes(wrong[: place + 7] + b"999" + wrong[place + 10 :])
    (tmp_path / "e-empty.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    done = run("-m", "cxr_node", "classify", "--json", ".", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 5
    assert [row["verdict"] for row in rows[:3]] == ["REJECTED"] * 3


LIBRARIES = """
import logging, sys, warnings
{first}
from cxr_node.cli.app import app
@app.command("speak")
def speak() -> None:
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    for name in ("", "pydicom", "pydicom.pixels.decoders.base", "pylibjpeg", "PIL", "openvino", "a.new.one"):
        logging.getLogger(name).critical("DOE^JOHN")
        try:
            raise ValueError("DOE^JOHN")
        except ValueError:
            logging.getLogger(name).exception("DOE^JOHN")
    warnings.warn("DOE^JOHN")
    warnings.warn("DOE^JOHN", DeprecationWarning)
app(["speak"])
"""


@pytest.mark.parametrize("first", ["", "import pydicom.config; pydicom.config.debug(True)"])
def test_whatever_level_a_library_speaks_at(tmp_path: Path, first: str) -> None:
    done = run("-c", LIBRARIES.replace("{first}", first), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


QUIET = """
import io, logging, sys
from cxr_node.dicom.part10 import quiet
from cxr_node.node.process import logs
logs.configure(stream=sys.stdout)
with quiet():
    logging.getLogger("pydicom").error("in the library")
    logging.getLogger("pydicom.of.a.child.that.came.later").error("in its child")
logging.getLogger("pydicom.of.a.child.that.came.later").error("outside")
"""


def test_a_role_s_log_is_spared_what_pydicom_s_children_say_while_a_header_is_read(tmp_path: Path) -> None:
    done = run("-c", QUIET, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1 and done.stdout.count("text withheld") == 1
