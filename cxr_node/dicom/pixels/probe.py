"""A process that reads headers and never pixels, and what it must ask of another one.

pydicom imports numpy and every codec that it finds: 35 MB of a receiver (measured), and C that it never calls. They are
kept out here; a child loads them, tells which transfer syntaxes they decode, and ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, cast

from cxr_node.dicom.pixels.sandbox import environment
from cxr_node.errors import ResourceError

LIBRARIES = ("numpy", "PIL", "gdcm", "pylibjpeg", "openjpeg", "libjpeg", "rle", "jpeg_ls")
"""What pydicom looks for."""
TIMEOUT_S = 60.0
"""For the child, on a machine that has much else to do."""
_COMMAND = (sys.executable, "-m", "cxr_node.dicom.pixels.probe")


def leave_out() -> None:
    """Make the pixel libraries look as if they were not installed; what this process has imported already stays."""
    modules = cast(dict[str, Any], sys.modules)
    for name in LIBRARIES:
        modules.setdefault(name, None)  # `import` then says ModuleNotFoundError (import system, 5.3.1)


class Question:
    """Which transfer syntaxes can be decoded here: asked at once, so that the answer comes while other rooms load."""

    def __init__(self, command: tuple[str, ...] = _COMMAND) -> None:
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment())
        except OSError as error:
            raise ResourceError("the process that knows the codecs cannot be started") from error

    def answer(self) -> tuple[str, ...]:
        """Wait for the UIDs, in the order in which they are offered.

        Raises ResourceError: the child died, or does not answer.
        """
        try:
            told, _ = self._child.communicate(timeout=TIMEOUT_S)
            return tuple(json.loads(told))
        except (subprocess.TimeoutExpired, ValueError) as error:
            self._child.kill()
            self._child.communicate()
            raise ResourceError("the process that knows the codecs does not answer") from error


if __name__ == "__main__":
    from cxr_node.dicom.pixels.codecs import transfer_syntaxes

    print(json.dumps([syntax.uid for syntax in transfer_syntaxes()]))
