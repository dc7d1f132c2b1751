"""The runtime for CPUs: OpenVINO, on the graph that `export` wrote into the profile folder. Knows no torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from cxr_node.errors import ModelError
from cxr_node.model import graph_file
from cxr_node.model.profile import Profile
from cxr_node.model.runtime import Floats, NetworkOutput

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails, as where it is not installed

import openvino as ov  # noqa: E402 - only now
from openvino import properties  # noqa: E402

VERSION = str(ov.__version__).partition("-")[0]
__all__ = ("VERSION", "ov", "properties")


_FAULTS = (*(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP),)
"""Signals of a thread's own faults: a thread that blocks them dies without a word of faulthandler's."""

T = TypeVar("T")


class OpenVINORuntime:
    """A network in OpenVINO; `runtime.Runtime`.

    One image is one call on all of its views, whatever waits beside it: a larger batch is no quicker on a CPU
    (measured: 8.1 ms for one image, 8.3 ms an image for two, 9.2 for four), and so no image can touch its neighbour.
    """

    batch = 1

    def __init__(self, profile: Profile, threads: int) -> None:
        self.name = f"OpenVINO {VERSION} CPU fp32"
        self.layer = graph_file.description(profile).layer
        graph, spec = graph_file.graph(profile), profile.input

        def compiled() -> Any:
            model = ov.Core().read_model(graph)
            model.reshape([len(spec.views), 1, spec.size_px, spec.size_px])
            return in_float32(model, threads)

        try:
            self._request = apart(compiled).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{profile.folder}: OpenVINO cannot use the exported network: {error}") from error

    def infer(self, shown: Floats) -> NetworkOutput:
        """As `runtime.Runtime`; one image after the other."""
        seen = [self._infer(np.ascontiguousarray(views)) for views in shown]
        strange = [one.strangeness for one in seen if one.strangeness is not None]
        return NetworkOutput(
            logits=np.concatenate([one.logits for one in seen]),
            activation=np.concatenate([one.activation for one in seen]),
            signature=np.concatenate([one.signature for one in seen]),
            strangeness=np.concatenate(strange) if strange else None,
        )

    def _infer(self, views: Floats) -> NetworkOutput:
        try:
            self._request.infer([views], share_inputs=True)
        except RuntimeError as error:
            raise ModelError(f"the network failed: {error}") from error
        logits, activation, signature, *strange = (tensor.data for tensor in self._request.output_tensors)
        return NetworkOutput(  # copies: the request writes into the same memory at its next call
            logits=logits[None].copy(),
            activation=activation[:1].copy(),
            signature=signature[:1].copy(),
            strangeness=strange[0][:1].copy() if strange else None,
        )


def in_float32(model: Any, threads: int) -> Any:
    """Compile a graph for this CPU.

    Without a hint OpenVINO computes in bfloat16 wherever a processor can, and the same image gets other numbers there.

    Raises RuntimeError: OpenVINO cannot, or will not in float32.
    """
    options = {
        properties.hint.inference_precision(): ov.Type.f32,
        properties.hint.execution_mode(): properties.hint.ExecutionMode.ACCURACY,
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        properties.inference_num_threads(): threads,
    }
    compiled = ov.Core().compile_model(model, "CPU", options)
    if (precision := compiled.get_property(properties.hint.inference_precision())) != ov.Type.f32:
        raise RuntimeError(f"it was asked for float32, and computes in {precision.get_type_name()}")
    return compiled


def apart(make: Callable[[], T]) -> T:
    """Call `make` in a thread of its own that ends at once: the one in which OpenVINO may set up its CPU plugin.

    That plugin gives the thread that loads it an alternate signal stack, and unmaps the stack when it is unloaded:
    in another thread, or after a second plugin, it leaves the first thread with a stack that is gone, and the next
    signal that Python handles there (SIGTERM, Ctrl-C) is a segmentation fault. An alternate stack ends with its
    thread; and threads that the plugin starts inherit from this one that signals are for others.
    """

    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - set(_FAULTS))

    with ThreadPoolExecutor(1, "openvino", begin) as maker:
        return maker.submit(make).result()
