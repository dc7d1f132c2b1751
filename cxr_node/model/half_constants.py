"""The constants of a graph kept as they were learned: fp16, and for each channel the factor of its normalisation.

A converter multiplies the weights of a convolution by the scale of the batch normalisation behind it; what was fp16 in
weights.safetensors becomes fp32, twice as large, and rounding it to fp16 again would move answers. Kept apart, weights
and factors lose nothing: OpenVINO multiplies them as it compiles, to the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_node.model.openvino_runtime import ov
from cxr_node.model.runtime import Floats

_MATRIX_AXES = 4
"""Of a convolution's weights at least: output channels, input channels, rows and columns; groups come before."""


def halve(graph: Any, learned: Iterable[Floats]) -> int:
    """Replace what a graph's constants were made of, in place.

    Parameters
    ----------
    graph : openvino.Model
    learned : float32, any shapes; the network's parameters

    Returns
    -------
    How many constants are fp16 now. Others stay: what is no convolution's, and what was not learned as fp16.
    """
    sources = defaultdict(list)
    for each in (each for each in learned if each.ndim == _MATRIX_AXES):
        with np.errstate(over="ignore"):  # what fp16 cannot hold is infinite, and unequal
            half = each.astype(np.float16)
        if np.array_equal(half, each):
            sources[each.size, len(each)].append(half)
    halved = 0
    for constant in [each for each in graph.get_ops() if each.get_type_name() == "Constant"]:
        folded = constant.data
        if folded.ndim < _MATRIX_AXES or folded.dtype != np.float32:
            continue
        for half in sources[folded.size, len(folded)]:
            if (factors := _factors(folded, half)) is not None:
                _replace(constant, half.reshape(folded.shape), factors)
                halved += 1
                break
    graph.validate_nodes_and_infer_types()
    return halved


def _factors(folded: Floats, half: NDArray[np.float16]) -> Floats | None:
    """By what each channel was multiplied, to the last bit; None where `folded` was made of something else."""
    count = len(folded)
    product, learned = folded.reshape(count, -1), half.reshape(count, -1).astype(np.float32)
    place = np.arange(count), np.abs(learned).argmax(axis=1)  # the largest: its quotient is the most exact
    known = learned[place] != 0.0
    quotient = np.divide(product[place], learned[place], out=np.ones(count, np.float32), where=known)
    factors, found = quotient.copy(), np.zeros(count, dtype=bool)
    for near in (quotient, np.nextafter(quotient, np.float32(np.inf)), np.nextafter(quotient, np.float32(-np.inf))):
        right = ~found & (learned * near[:, None] == product).all(axis=1)
        factors[right] = near[right]
        found |= right
    return factors if found.all() else None


def _replace(constant: Any, half: NDArray[np.float16], factors: Floats) -> None:
    whole = ov.opset13.convert(ov.opset13.constant(half), "f32")
    if (factors != 1.0).any():
        whole = ov.opset13.multiply(whole, ov.opset13.constant(factors.reshape(-1, *[1] * (half.ndim - 1))))
    for output in constant.outputs():
        for target in output.get_target_inputs():
            target.replace_source_output(whole.output(0))
