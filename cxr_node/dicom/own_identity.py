"""How our own result objects are told from everybody else's: what `result` writes, `admission` looks for.

Knows no data set. The receiver must not sign the files of its spool with this UID: they are the senders' objects.
"""

from __future__ import annotations

from cxr_node import __version__

IMPLEMENTATION_CLASS_UID = "2.25.185814882927451263349267447895445246782"
"""Of every file we make (PS3.10 7.1), and the Instance Creator UID (PS3.3 C.12.1.1), which archives keep."""

IMPLEMENTATION_VERSION_NAME = f"CXR_NODE_{__version__}"[:16]

PRODUCT = "cxr_node"
"""Manufacturer's Model Name of our Contributing Equipment item begins with this (PS3.3 C.12.1.1)."""

PROCESSING_EQUIPMENT = "109102"
"""Purpose of our Contributing Equipment item, coding scheme DCM (PS3.16 CID 7005)."""
