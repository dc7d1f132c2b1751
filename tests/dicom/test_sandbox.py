"""What a codec does to its process costs one image: the parent lives, and the next image is decoded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from cxr_node.dicom.pixels import codecs
from cxr_node.dicom.pixels.sandbox import MAX_MEMORY_BYTES, Sandbox
from cxr_node.errors import ResourceError
from tests.builders import chest, part10, radiograph
from tests.dicom.test_codecs import decoded
from tests.patience import PATIENCE_S

REQUEST = {"expected_bytes": 4}
_READ = "import sys, os, time; sys.stdout.write('ready'); sys.stdout.flush(); sys.stdin.buffer.readline(); "


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox whose child runs the given Python."""
    sandbox = Sandbox((sys.executable, "-c", request.param), timeout_s=5.0)
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize(
    "child",
    [
        _READ + "os.abort()",
        _READ + "sys.exit(0)",
        _READ + "sys.stdout.buffer.write(bytes(3))",
        _READ + "sys.stdout.buffer.write((1 << 60).to_bytes(8, 'little') + b'more than was asked for')",
        _READ + "sys.stdout.buffer.write((0).to_bytes(8, 'little')); sys.stdout.flush(); time.sleep(9)",
    ],
    ids=["aborts", "leaves", "answers half", "answers too much", "refuses"],
    indirect=True,
)
def test_a_child_that_fails_is_no_answer(child: Sandbox) -> None:
    assert child.ask(REQUEST, b"image") is None


@pytest.mark.parametrize(
    "child", [_READ + "sys.stdout.write('x' * 12); sys.stdout.flush(); time.sleep(60)"], indirect=True
)
def test_an_answer_is_taken_as_bytes_and_no_more(child: Sandbox) -> None:
    """The length that these twelve letters spell is absurd."""
    assert child.ask(REQUEST, b"image") is None


def test_a_child_that_hangs_is_ended_in_time() -> None:
    sandbox = Sandbox((sys.executable, "-c", _READ + "time.sleep(600)"), timeout_s=1.0)
    begun = time.monotonic()
    assert sandbox.ask(REQUEST, b"image") is None
    assert time.monotonic() - begun < PATIENCE_S
    assert sandbox.pid is None


@pytest.mark.parametrize("command", [("/nonexistent",), (sys.executable, "-c", "raise SystemExit(1)")])
def test_a_machine_that_cannot_start_it_is_to_blame_not_the_image(command: tuple[str, ...]) -> None:
    with pytest.raises(ResourceError):
        Sandbox(command).ask(REQUEST, b"image")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_the_image_after_a_killed_child_is_decoded(number: signal.Signals) -> None:
    content = part10(radiograph(), JPEG2000Lossless)
    assert (decoded(content) == chest()).all()
    pid = codecs._SANDBOX.pid
    assert pid is not None
    os.kill(pid, number)
    assert (decoded(content) == chest()).all()
    assert codecs._SANDBOX.pid not in (None, pid)


_CONFINED = "from cxr_node.dicom.pixels.sandbox import confine; assert confine(); "
_TRIES = {
    "network": "import socket; socket.socket()",
    "local socket": "import socket; socket.socket(socket.AF_UNIX)",
    "program": "import os; os.execv('/bin/true', ['true'])",
    "shell": "import subprocess; subprocess.run(['true'])",
    "new file": "import sys; open(sys.argv[1] + '/new', 'w')",
    "old file": "import sys; open(sys.argv[1] + '/old', 'r+')",
    "removal": "import os, sys; os.unlink(sys.argv[1] + '/old')",
    "name": "import os, sys; os.rename(sys.argv[1] + '/old', sys.argv[1] + '/other')",
    "signal to the parent": "import os, signal; os.kill(os.getppid(), signal.SIGCONT)",
}


@pytest.mark.parametrize("attempt", _TRIES.values(), ids=_TRIES)
def test_a_codec_reaches_no_network_and_no_program_and_changes_no_file(attempt: str, tmp_path: Path) -> None:
    """What code of an attacker's could do in the child: each attempt fails there, and works without the filter."""
    ended = []
    for front in ("", _CONFINED):
        (tmp_path / "old").write_text("kept")
        command = [sys.executable, "-c", front + attempt, str(tmp_path)]
        ended.append(subprocess.run(command, capture_output=True, text=True, check=False))
    free, confined = ended
    assert free.returncode == 0, free.stderr
    assert confined.returncode != 0
    assert "Operation not permitted" in confined.stderr


def test_the_child_that_decodes_is_confined() -> None:
    decoded(part10(radiograph(), JPEG2000Lossless))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{codecs._SANDBOX.pid}/status").read_text().splitlines())
    assert status["Seccomp"].strip() == "2", "no filter"
    assert status["NoNewPrivs"].strip() == "1"
    limits = Path(f"/proc/{codecs._SANDBOX.pid}/limits").read_text()
    assert re.search(rf"Max address space +{MAX_MEMORY_BYTES} +{MAX_MEMORY_BYTES} ", limits)
    assert re.search(r"Max core file size +0 +0 ", limits)
    assert (found := re.search(r"Max cpu time +(\d+) ", limits))
    assert 60 <= int(found[1]) < 120


def test_a_child_that_computes_without_end_ends_even_where_its_parent_died() -> None:
    program = (
        "from cxr_node.dicom.pixels import sandbox; sandbox.TIMEOUT_S = 1.0\n"
        "def answer(*_):\n    while True: pass\n"
        "sandbox.serve(answer)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], input=b'{"length": 0}\n', capture_output=True, timeout=30, check=False
    )
    assert found.returncode == -signal.SIGXCPU


def test_signals_to_stop_are_left_to_the_parent() -> None:
    content = part10(radiograph(), JPEG2000Lossless)
    decoded(content)
    pid = codecs._SANDBOX.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert (decoded(content) == chest()).all()
    assert codecs._SANDBOX.pid == pid
