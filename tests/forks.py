"""Processes forked from one that has imported what they need and runs no thread: thirty of them cost seconds.

One such server for the whole run of the tests: whoever asks first decides what it has imported.
"""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.node.crash_child", "tests.node.line_deaths", "tests.chaos.archive"])
