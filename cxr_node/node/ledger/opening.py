"""How a process that serves opens the ledger: where a server does not answer yet, it waits."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from cxr_node.config.schema import Config
from cxr_node.errors import ResourceError
from cxr_node.node.ledger.ledger import Ledger

log = logging.getLogger(__name__)

_LONGEST_S = 10.0
"""Between two tries."""


def await_ledger(config: Config, stop: threading.Event, progress: Callable[[], None] = lambda: None) -> Ledger:
    """Open the ledger, and mend its file; wait for its server as long as it takes, until `stop` is set.

    Raises
    ------
    ResourceError : the file in the spool cannot be used.
    ConfigError : waiting cannot help.
    SystemExit : the process is to stop, as it was asked to.
    """
    pause_s = 0.5
    while True:
        progress()
        try:
            return Ledger.of_node(config, repair=True)
        except ResourceError as error:
            if config.ledger.url is None:
                raise
            log.warning("waiting for the ledger pause_s=%.1f %s", pause_s, error)
        if stop.wait(pause_s * random.uniform(0.5, 1.0)):  # noqa: S311 - several machines come back one by one
            raise SystemExit(0)
        pause_s = min(2 * pause_s, _LONGEST_S)
