"""OpenVINO without its telemetry: a node in a hospital reports to nobody.

`convert_model` would tell an analytics service of its use, wherever package openvino-telemetry is found; it
has a stub for where it is not. So that package is hidden before OpenVINO looks for it, and OpenVINO is imported here
and nowhere else.
"""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails, as where it is not installed

import openvino as ov  # noqa: E402 - only now
from openvino import properties  # noqa: E402

VERSION = str(ov.__version__).partition("-")[0]
__all__ = ("VERSION", "ov", "properties")
