"""A process without codecs knows what can be decoded, and reads every header as others do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import uid

from cxr_node.dicom.pixels import codecs, probe
from cxr_node.dicom.read import header
from cxr_node.errors import ResourceError
from tests import builders

SYNTAXES = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)


def test_the_child_tells_what_can_be_decoded() -> None:
    assert probe.Question().answer() == tuple(syntax.uid for syntax in codecs.transfer_syntaxes())


@pytest.mark.parametrize("program", ["print('none')", "raise SystemExit(1)", "import time; time.sleep(60)"])
def test_a_child_that_does_not_answer_stops_the_start(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 1.0)
    with pytest.raises(ResourceError, match="does not answer"):
        probe.Question((sys.executable, "-c", program)).answer()


def test_headers_are_read_without_the_pixel_libraries(tmp_path: Path) -> None:
    """And nothing of what is left out is imported after all."""
    program = (
        "import json, sys; from pathlib import Path; from cxr_node.dicom.pixels import probe; probe.leave_out()\n"
        "from cxr_node.dicom.read import header\n"
        "told = {path.name: repr(header.inspect(path)) for path in Path(sys.argv[1]).iterdir()}\n"
        "print(json.dumps([told, [name for name in probe.LIBRARIES if sys.modules[name]]]))\n"
    )
    for syntax in SYNTAXES:
        (tmp_path / syntax).write_bytes(builders.part10(builders.radiograph(), syntax))
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    told, imported = json.loads(done.stdout)
    assert told == {path.name: repr(header.inspect(path)) for path in tmp_path.iterdir()}
    assert len(told) == len(SYNTAXES)
    assert imported == []
