"""The runtime for CPUs: OpenVINO, on the graph that `export` wrote into the profile folder. Knows no torch."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cxr_node.errors import ModelError
from cxr_node.model import compiled_graphs, graph_file
from cxr_node.model.profile import Profile
from cxr_node.model.runtime import Company, Floats, NetworkOutput

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails, as where it is not installed
sys.modules["openvino.tools"] = None  # type: ignore[assignment]  # 0.1 s of each start; `export` alone needs them

import openvino as ov  # noqa: E402 - only now
from openvino import properties  # noqa: E402

del sys.modules["openvino.tools"]
VERSION = str(ov.__version__).partition("-")[0]
__all__ = ("VERSION", "ov", "properties")
log = logging.getLogger(__name__)


_FAULTS = (*(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP),)
"""Signals of a thread's own faults: a thread that blocks them dies without a word of faulthandler's."""

T = TypeVar("T")


class OpenVINORuntime:
    """A network in OpenVINO; `runtime.Runtime`.

    One image is one call on all of its views, whatever waits beside it: a larger batch is no quicker on a CPU
    (measured: 8.1 ms for one image, 8.3 ms an image for two, 9.2 for four), and so no image can touch its neighbour.
    With company, images go side by side, each on one core: a fifth less of processor time, and the same numbers.

    `threads` : of one call, or as many calls at once
    `company` : which images are in hand; None: one at a time
    """

    batch = 1
    is_shared = True

    def __init__(self, profile: Profile, threads: int, company: Company | None = None) -> None:
        self.name = f"OpenVINO {VERSION} CPU fp32"
        told = graph_file.description(profile)
        self.layer = told.layer
        graph, spec = graph_file.graph(profile), profile.input
        shape = [len(spec.views), spec.pictures, spec.side_px, spec.side_px]

        def compiled(streams: int) -> Any:
            files = sorted(told.sha256.items())
            name = compiled_graphs.name_of(VERSION, _processor(), files, shape, threads, streams)
            if (kept := compiled_graphs.read(name)) is not None:
                with suppress(RuntimeError):
                    return _in_float32(ov.Core().import_model(kept, "CPU", _options(threads, streams)))
            model = ov.Core().read_model(graph)
            model.reshape(shape)
            made = in_float32(model, threads, streams)
            compiled_graphs.keep(name, made.export_model().getvalue())
            return made

        try:
            self._request = apart(partial(compiled, 1)).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{profile.folder}: OpenVINO cannot use the exported network: {error}") from error
        self._turn, self._is_narrow = threading.Lock(), threads == 1
        self._company = company or Company()

        def several() -> list[Any]:  # nothing of it costs a start that never has company
            trial, _ = graph_file.trial(spec, few=True)
            return self._several(partial(compiled, threads), threads, trial)

        self._beside = _SideBySide(several)

    def infer(self, shown: Floats) -> NetworkOutput:
        """As `runtime.Runtime`; one image after the other."""
        with self._requested() as request:
            return self._answer(request, shown)

    @contextmanager
    def _requested(self) -> Iterator[Any]:
        """The request that has all cores, or one of those that have one each."""
        one = None if self._company.is_alone or self._is_narrow else self._beside.take()
        if one is None:
            with self._turn:
                yield self._request
            return
        try:
            yield one
        finally:
            self._beside.give(one)

    def _several(self, compiled: Callable[[], Any], number: int, trial: Floats) -> list[Any]:
        """Requests of one core each; none where they would answer otherwise than the one that has all."""
        made = apart(compiled)
        requests = [made.create_infer_request() for _ in range(number)]
        found = self._answer(requests[0], trial)
        with self._turn:
            expected = self._answer(self._request, trial)
        pairs = [(getattr(found, each.name), getattr(expected, each.name)) for each in fields(expected)]
        if not all(np.array_equal(one, other) for one, other in pairs if other is not None):
            log.info("images are examined one after the other: side by side the network answers otherwise here")
            return []
        return requests

    def _answer(self, request: Any, shown: Floats) -> NetworkOutput:
        seen = [self._infer(request, np.ascontiguousarray(views)) for views in shown]
        strange = [one.strangeness for one in seen if one.strangeness is not None]
        return NetworkOutput(
            logits=np.concatenate([one.logits for one in seen]),
            activation=np.concatenate([one.activation for one in seen]),
            signature=np.concatenate([one.signature for one in seen]),
            strangeness=np.concatenate(strange) if strange else None,
        )

    def _infer(self, request: Any, views: Floats) -> NetworkOutput:
        try:
            request.infer([views], share_inputs=True)
        except RuntimeError as error:
            raise ModelError(f"the network failed: {error}") from error
        logits, activation, signature, *strange = (tensor.data for tensor in request.output_tensors)
        return NetworkOutput(  # copies: the request writes into the same memory at its next call
            logits=logits[None].copy(),
            activation=activation[:1].copy(),
            signature=signature[:1].copy(),
            strangeness=strange[0][:1].copy() if strange else None,
        )


class _SideBySide:
    """Requests that are made when they are first wanted, by a thread of its own: nobody waits for them."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make, self._maker = make, threading.Lock()
        self._free: list[Any] = []

    def take(self) -> Any | None:
        """One that nobody uses; None where there is none, or not yet."""
        try:
            return self._free.pop()
        except IndexError:
            if self._maker.acquire(blocking=False):  # once and for all
                threading.Thread(target=self._fill, name="side by side").start()
            return None

    def give(self, request: Any) -> None:
        """Give it back."""
        self._free.append(request)

    def _fill(self) -> None:
        try:
            self._free.extend(self._make())
        except (ModelError, RuntimeError) as error:
            log.warning("images are examined one after the other: %s", error)


def in_float32(model: Any, threads: int, streams: int = 1) -> Any:
    """Compile a graph for this CPU; `streams` calls share the threads.

    Without a hint OpenVINO computes in bfloat16 wherever a processor can, and the same image gets other numbers there.

    Raises RuntimeError: OpenVINO cannot, or will not in float32.
    """
    return _in_float32(ov.Core().compile_model(model, "CPU", _options(threads, streams)))


def _options(threads: int, streams: int) -> dict[str, Any]:
    options = {
        properties.hint.inference_precision(): ov.Type.f32,
        properties.hint.execution_mode(): properties.hint.ExecutionMode.ACCURACY,
        properties.inference_num_threads(): threads,
        properties.hint.enable_cpu_pinning(): False,  # every process would pin its first thread to the same core
    }
    if streams > 1:
        options[properties.num_streams()] = streams
    else:
        options[properties.hint.performance_mode()] = properties.hint.PerformanceMode.LATENCY
    return options


def _in_float32(compiled: Any) -> Any:
    if (precision := compiled.get_property(properties.hint.inference_precision())) != ov.Type.f32:
        raise RuntimeError(f"it was asked for float32, and computes in {precision.get_type_name()}")
    return compiled


def converted(network: Any, example: Any, shape: list[int]) -> Any:
    """Turn a network of torch into a graph; by tools that found no telemetry when they were imported, see above."""
    from openvino.tools.ovc import convert_model

    return convert_model(network, example_input=example, input=shape)


def _processor() -> list[str]:
    """What a compiled graph is made for."""
    told = [os.environ.get("ONEDNN_MAX_CPU_ISA", "")]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        told += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return told


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
