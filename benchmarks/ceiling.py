"""How quick a network could be on this machine at most: its arithmetic, at the rate of one large matrix product.

No convolution comes nearer to the processor's peak than a product whose operands stay in the cache, so what takes
longer than this may be mended, and what is asked to be quicker cannot be had.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cxr_node.model import weights
from cxr_node.model.openvino_runtime import apart, ov, properties
from cxr_node.model.preprocess import VIEW_NAMES
from cxr_node.model.profile import Profile
from cxr_node.model.torch_runtime import Served

_SIDE, _REPEATS = 2048, 30


def measure(loaded: Profile) -> dict[str, float]:
    """Arithmetic of all views of one radiograph, the machine's rate, and how long the one takes at the other."""
    work, rate = gflop(loaded), matrix_gflop_s()
    return {"gflop": work, "matrix_gflop_s": rate, "least_ms": 1000.0 * work / rate}


def gflop(loaded: Profile) -> float:
    """Floating-point operations of one radiograph's answer, in thousand millions; torch counts them."""
    network, _ = weights.load(loaded.weights_path, loaded.network, len(loaded.labels))
    seen = torch.zeros(len(VIEW_NAMES), 1, loaded.input.size_px, loaded.input.size_px)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        Served(network, loaded.judged)(seen)
    return float(counted.get_total_flops()) / 1e9


def matrix_gflop_s() -> float:
    """The best rate of several products in float32, by the runtime that serves."""
    generator = np.random.default_rng(0)
    one, other = (generator.random((_SIDE, _SIDE), dtype=np.float32) for _ in range(2))
    parts = ov.opset13
    parameter = parts.parameter([_SIDE, _SIDE], np.float32)
    model = ov.Model([parts.matmul(parameter, parts.constant(other), False, False)], [parameter])
    request = in_float32(model)

    def took_s() -> float:
        began = time.perf_counter()
        request.infer([one], share_inputs=True)
        return time.perf_counter() - began

    return 2.0 * _SIDE**3 / min(took_s() for _ in range(_REPEATS)) / 1e9


def in_float32(model: Any) -> Any:
    """What runs a graph on this CPU, as the runtime that serves does."""
    precision = {properties.hint.inference_precision(): ov.Type.f32}
    return apart(lambda: ov.Core().compile_model(model, "CPU", precision)).create_infer_request()
