"""What the kernel must not write when a process of the node dies: its memory holds patients' images.

Imports nothing of ours, for every process calls it: the roles from `cli`, the decoder's child itself.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

_FILTER = Path("/proc/self/coredump_filter")


def leave_no_core() -> None:
    """Forbid core files to this process and its children, whatever the shell or the service manager allows.

    The limit counts where the kernel writes a file. A handler that it pipes a core to is started all the same
    (core(5)), so the filter leaves every memory mapping out. Both are inherited by children and kept by exec.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # not Linux, or /proc is hidden: the limit stands
        _FILTER.write_text("0")
