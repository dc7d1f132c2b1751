"""`cxr-node ROLE ...` that kills itself at a named call: python -m tests.chaos.failing PLACE WHEN NTH ROLE ..."""

from __future__ import annotations

import sys

from cxr_node.cli.node import app
from tests.node.crash_child import kill_at

if __name__ == "__main__":
    place, when, nth = sys.argv[1:4]
    kill_at(place, when, int(nth))
    app(sys.argv[4:])
