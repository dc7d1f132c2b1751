"""Prediction and explanation of the default profile at batch 1, beside torch in fp32 with the package grad-cam.

Three comparisons on the same weights, both sides in turn: from the decoded radiograph to probability and heat map (the
same answer: all views; and one view, which is less), the network alone, and our whole answer over the bare forward
pass of our runtime. Then both maps of many images, as correlation; and how quick the network could be at most: its
arithmetic, at the rate of one large matrix product, whose operands stay in the cache.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import dcmread
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import record
from benchmarks.images import TEN_MB, Images
from benchmarks.plain_node import PROFILE, Answer, PlainModel, shown
from benchmarks.record import ratio, spread
from cxr_node import pipeline, resources
from cxr_node.config.schema import Admission
from cxr_node.dicom.read import header
from cxr_node.domain import NO_PRECEDENT, Examination, Radiograph
from cxr_node.errors import InstanceError
from cxr_node.model import graph_file, profile, weights
from cxr_node.model.openvino_runtime import apart, in_float32, ov
from cxr_node.model.predictor import LARGEST_DIFFERENCE, ProfilePredictor, load_predictor
from cxr_node.model.preprocess import pictures, views
from cxr_node.model.profile import Profile
from cxr_node.model.torch_runtime import Served
from cxr_node.outcome import Rejected
from cxr_node.tools import classify, drawn
from cxr_node.tools.drawn import Plate

OURS, PASS = "cxr_node", "cxr_node, bare forward pass"
ONE_EACH = "cxr_node, one view, network alone"
SAME, ONE = "plain, same answer", "plain, one view"
NETWORK_SAME, NETWORK_ONE = "plain, same answer, network alone", "plain, one view, network alone"
NETWORK_BATCH = "plain, same answer, network alone, all views through grad-cam"
CHANNELS_LAST = "plain, same answer, network alone, channels last"
NETWORKS = (NETWORK_SAME, NETWORK_ONE, NETWORK_BATCH, CHANNELS_LAST)
DRAWN = Plate(rows=640, cols=512)
"""Images of the correlation where no real ones are named."""
WARM_UP = 5
_SIDE, _REPEATS = 2048, 30
"""Of a matrix product, and how many of them are timed."""
PAUSE_S = 0.05
"""Between two ways, so that no thread that still spins takes the next one's core."""

_WAYS: dict[str, Callable[[], object]] = {}
"""Of this process: each side is measured in one of its own, with its own threads."""


def measure(_folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Times first, then maps."""
    times = spent(options.repeats, bar)
    p50 = {name: values["p50"] for name, values in times.items()}
    ratios = {name: ratio(p50[name], p50[OURS]) for name in (SAME, ONE)}
    networks = {name: ratio(p50[name], p50[PASS]) for name in NETWORKS}
    one_by_one = ratio(p50[NETWORK_ONE], p50[ONE_EACH])
    loaded = profile.load(resources.profile_folder(PROFILE))
    plain, ours = PlainModel(loaded), load_predictor(loaded)
    return {
        "profile": loaded.name,
        "runtime": ours.runtime.name,
        "torch_threads": torch.get_num_threads(),
        "ms": times,
        "ratio": ratios | networks,
        "one_view_by_one_view": one_by_one,
        "over_bare_forward_pass": ratio(p50[OURS], p50[PASS]),
        "ceiling": ceiling(loaded),
        "maps": maps(plain, ours, options, bar),
    }


def spent(repeats: int, bar: Progress) -> dict[str, dict[str, Any]]:
    """Milliseconds of each way: one of ours, one of the others', in turn."""
    content = Images(TEN_MB).drawings[1].part10
    spawn = multiprocessing.get_context("spawn")
    took: dict[str, list[float]] = {}
    with (
        ProcessPoolExecutor(1, spawn, _ready_ours, (content,)) as ours,
        ProcessPoolExecutor(1, spawn, _ready_plain, (content,)) as plain,
    ):
        ways = [(name, ours) for name in (OURS, PASS, ONE_EACH)]
        ways += [(name, plain) for name in (SAME, ONE, *NETWORKS)]
        difference = abs(ours.submit(_probability, OURS).result() - plain.submit(_probability, SAME).result())
        if difference > LARGEST_DIFFERENCE:
            raise ValueError(f"the probabilities differ by {difference:.3f}: these are not two ways to the same answer")
        task = bar.add_task("prediction and explanation", total=(repeats + WARM_UP) * len(ways))
        for repeat in range(repeats + WARM_UP):
            for name, pool in ways:
                time.sleep(PAUSE_S)
                ms = pool.submit(_timed_ms, name).result()
                if repeat >= WARM_UP:
                    took.setdefault(name, []).append(ms)
                bar.advance(task)
    return {name: spread(values) for name, values in took.items()}


def _ready_ours(content: bytes) -> None:
    ours = load_predictor(profile.load(resources.profile_folder(PROFILE)))
    radiograph = decoded(content, ours)
    batch = seen_by(ours, radiograph)
    _WAYS.update({OURS: lambda: ours.examine(radiograph), PASS: lambda: ours.runtime.infer(batch)})
    one = _for_one_view(ours.profile)
    _WAYS[ONE_EACH] = lambda: one.infer([batch[0, :1]], share_inputs=True)


def _for_one_view(loaded: profile.Profile) -> Any:
    """The exported graph for a batch of one view: what a pass costs, its map included, beside the package's."""
    spec = loaded.input
    model = ov.Core().read_model(graph_file.graph(loaded))
    model.reshape([1, spec.pictures, spec.side_px, spec.side_px])
    return apart(lambda: in_float32(model, os.cpu_count() or 1)).create_infer_request()


def _ready_plain(content: bytes) -> None:
    plain, last = (PlainModel(profile.load(resources.profile_folder(PROFILE))) for _ in range(2))
    last.network.to(memory_format=torch.channels_last)
    pixels = shown(dcmread(io.BytesIO(content)))
    prepared = plain.prepared(pixels)
    one = plain.placed([each[None] for each in prepared])
    _WAYS[SAME], _WAYS[ONE] = lambda: plain.same_answer(pixels), lambda: plain.answer(pixels)
    _WAYS[NETWORK_SAME], _WAYS[NETWORK_ONE] = lambda: plain.seen(prepared), lambda: plain.map_of(one)
    _WAYS[NETWORK_BATCH] = lambda: plain.seen_at_once(prepared)
    _WAYS[CHANNELS_LAST] = lambda: last.seen(prepared)


def _timed_ms(name: str) -> float:
    began = time.perf_counter()
    _WAYS[name]()
    return 1000.0 * (time.perf_counter() - began)


def _probability(name: str) -> float:
    match _WAYS[name]():
        case Examination(prediction=prediction):
            return next(iter(prediction.probability.values()))
        case Answer(probability=probability):
            return probability
    raise TypeError(name)


def seen_by(ours: ProfilePredictor, radiograph: Radiograph) -> NDArray[np.float32]:
    """What the runtime is shown of a radiograph: (1, views, pictures, side_px, side_px)."""
    spec = ours.profile.input
    return views(pictures(radiograph.pixels, spec), spec)[None]


def maps(plain: PlainModel, ours: ProfilePredictor, options: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """Pearson's correlation of the package's map with ours, at the resolution of the network's input.

    What our runtime computes is compared, before `gradcam.on_source_grid` blanks cold maps and rounds steps.
    """
    torch.set_num_threads(1)  # two libraries' threads in one process, and nothing is timed here
    task = bar.add_task("maps of both", total=options.maps)
    found, differences = [], []
    for _, radiograph in zip(range(options.maps), radiographs(options, ours), strict=False):
        batch = seen_by(ours, radiograph)
        output = ours.runtime.infer(batch)
        reference = plain.map_of(torch.from_numpy(batch[0, :1]))
        found.append(correlation(plain.scaled(output.activation[0]), reference))
        theirs, mine = plain.cam.outputs[0].detach().numpy(), output.logits[0, 0]
        differences.append(float(np.abs(theirs - mine).max()))
        bar.advance(task)
    source = "real radiographs" if options.data else "drawn radiographs"
    return {"images": source, "correlation": spread(found), "largest_logit_difference": max(differences)}


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's; 1.0 where both are flat, for then they are the same."""
    if not one.std() and not other.std():
        return 1.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def radiographs(options: argparse.Namespace, ours: ProfilePredictor) -> Iterator[Radiograph]:
    """Of a folder, or drawn ones."""
    if options.data is None:
        for content in drawn.draw(DRAWN, options.maps):
            yield decoded(content, ours)
        return
    for path in classify.files([options.data]):
        try:
            yield decoded(classify.part10(path, **drawn.BUILT_IN_ATTRIBUTES), ours)
        except (InstanceError, ValueError):
            continue


def decoded(content: bytes, ours: ProfilePredictor) -> Radiograph:
    """As the node decodes it."""
    source = header.read(content)
    found = source if isinstance(source, Rejected) else pipeline.admit(source, ours.profile, Admission(), NO_PRECEDENT)
    if isinstance(found, Rejected):
        raise ValueError(found.sentence)
    return found


def ceiling(loaded: Profile) -> dict[str, float]:
    """Arithmetic of all views of one radiograph, the machine's rate, and how long the one takes at the other."""
    work, rate = gflop(loaded), matrix_gflop_s()
    return {"gflop": work, "matrix_gflop_s": rate, "least_ms": 1000.0 * work / rate}


def gflop(loaded: Profile) -> float:
    """Floating-point operations of one radiograph's answer, in thousand millions; torch counts them."""
    network, _ = weights.load(loaded.weights_path, loaded.network, len(loaded.labels))
    spec = loaded.input
    seen = torch.zeros(len(spec.views), spec.pictures, spec.side_px, spec.side_px)
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
    request = apart(lambda: in_float32(model, os.cpu_count() or 1)).create_infer_request()

    def took_s() -> float:
        began = time.perf_counter()
        request.infer([one], share_inputs=True)
        return time.perf_counter() - began

    return 2.0 * _SIDE**3 / min(took_s() for _ in range(_REPEATS)) / 1e9


def main() -> None:
    """Run, and write the figures."""
    parser = record.options(__doc__, repeats=60, maps=100)
    parser.add_argument("--data", type=Path, help="folder of real radiographs for the correlation of the maps")
    record.run("explanation", parser, measure)


if __name__ == "__main__":
    main()
