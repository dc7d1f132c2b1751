"""What is set once in a process that judges images."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, threading
from cxr_node import process_setup
def faults():
    def images():
        for _ in range(20):
            del [bytearray(b"x") * 10_000_000 for _ in range(3)][:]
    images()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    images()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
process_setup.keep_freed()
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_image() -> None:
    """In a process of its own: the setting is the process's."""
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, check=True, capture_output=True, text=True)
    assert float(run.stdout) < 100  # without it some 7,000 where pages have 4 KiB


SEARCHES = """
import gc, time
from cxr_node import process_setup
import cxr_node.config.loader, sqlalchemy, pydicom
def search_s():
    started = time.process_time()
    for _ in range(5):
        gc.collect()
    return time.process_time() - started
before = search_s()
process_setup.keep_what_started()
print(search_s() / before)
"""


def test_what_a_process_starts_with_is_no_longer_searched() -> None:
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", SEARCHES], cwd=root, check=True, capture_output=True, text=True)
    assert float(run.stdout) < 0.3
