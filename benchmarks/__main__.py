"""`python -m benchmarks all`: every benchmark one after the other, then docs/performance.md. Some twenty minutes."""

from __future__ import annotations

import subprocess
import sys

ALL = (
    "ingest",
    "explanation",
    "node",
    "studies",
    "growth",
    "least",
    "milliseconds",
    "classify",
    "start",
    "web",
    "cluster",
    "page",
)
"""Ingest comes first: for five minutes ext4 passes by the inodes of files that the others have deleted, one by one."""


def main() -> int:
    """Run each in a process of its own, so that none starts with another's memory and threads."""
    if sys.argv[1:] != ["all"]:
        print(f"usage: python -m benchmarks all, or python -m benchmarks.NAME with one of {', '.join(ALL)}")
        return 2
    for name in ALL:
        if code := subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
