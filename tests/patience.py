"""How long a test waits for what must come, and for how long what must never last would last.

No test rests on how quick a machine is: it waits for an event, for so long that only a lost event is too late; and
where a deadline is to be shown, its absence would last for longer than the test waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 90.0
"""For an event of this machine: beyond, it does not come."""
NODE_S = 300.0
"""For what a whole node does, on two cores that others use too."""
FOR_EVER_S = 1200.0
"""What a peer or a child does where no deadline ends it; longer than `PATIENCE_S`, and than pytest's own limit."""
_LOOK_S = 0.02


def eventually(holds: Callable[[], object], timeout_s: float = PATIENCE_S) -> bool:
    """Wait for what another process or thread brings about; whether it came."""
    until = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK_S)
    return True


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = NODE_S) -> None:
    """Wait for what a node brings about, or fail and name what did not come."""
    assert eventually(holds, timeout_s), f"not within {timeout_s:.0f} s: {what}"
