"""How long a test waits for what must come, and for how long what must never last would last.

No test rests on how quick a machine is: it waits for an event, for so long that only a lost event is too late; and
where a deadline is to be shown, its absence would last for longer than the test waits.
"""

from __future__ import annotations

PATIENCE_S = 90.0
"""For an event of this machine: beyond, it does not come."""
FOR_EVER_S = 600.0
"""What a peer or a child does where no deadline ends it; longer than `PATIENCE_S`, and than pytest's own limit."""
