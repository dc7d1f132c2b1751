"""What fewer views, or 8-bit integers, would cost and save: each is calibrated anew before it is judged.

    python -m tools.cheaper_network PROFILE_FOLDER --data FOLDER [--manifest FILE --positive WORD --negative WORD]
        [--int8] [--int8-of FILE] [--films N]

Fitted on the calibration part, judged on the validation part; on all films of a manifest where the program does not
know the profile's parts. `--int8` quantises the graph after training (package nncf, which nothing else here needs), on
films of the training part or of the manifest `--int8-of`; with weights of 7 bits, so that processors without VNNI do
not saturate and all of them answer alike. Nothing is written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_node.domain import OperatingPoint, Verdict
from cxr_node.model import graph_file, ood_distance, preprocess, weights_file
from cxr_node.model import profile as profiles
from cxr_node.model.openvino_runtime import apart, in_float32, ov
from cxr_node.model.profile import Profile, Shown
from cxr_node.training.calibrate import calibrate
from cxr_node.training.calibrate.platt import platt
from cxr_node.training.data.images import Item
from cxr_node.training.data.profile_folder import Labels, held_out, recipe_of
from cxr_node.training.data.recipe import Recipe
from cxr_node.training.measure import evaluate, inference, metrics
from cxr_node.training.measure.inference import Scores
from cxr_node.training.measure.metrics import Outcomes

FIGURES = ("auc", "answered", "accuracy_of_answered")
SOME_VIEWS = (tuple(Shown), *((Shown.PLAIN, one) for one in tuple(Shown)[1:]))
QUANTISED_ON, ROUNDS = 100, 30
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a graph says of some films, one row each: its outputs for the plain view, the logits of every view."""

    logits: Floats
    activation: Floats
    signature: Floats
    strangeness: Floats | None

    def scores(self, stats: dict[str, Floats], rows: Sequence[int]) -> Scores:
        """From some of the views."""
        return Scores(
            logits=self.logits[:, rows],
            distance=ood_distance.distance(self.signature, stats, self.strangeness).astype(np.float64),
        )


def see(request: Any, spec: profiles.InputSpec, inputs: torch.Tensor) -> Seen:
    """Pass prepared films through a graph, one after the other."""
    rows = []
    for film in inputs:
        request.infer([preprocess.views(film.numpy(), spec)])
        logits, *rest = (tensor.data for tensor in request.output_tensors)
        rows.append([logits[:, :1].copy(), *(part[0].copy() for part in rest)])
    logits, activation, signature, *strange = (np.stack(part) for part in zip(*rows, strict=True))
    return Seen(logits=logits, activation=activation, signature=signature, strangeness=strange[0] if strange else None)


def request_of(model: Any, spec: profiles.InputSpec, views: int) -> Any:
    """Compile a graph for one thread."""
    model.reshape([views, 1, spec.size_px, spec.size_px])
    return apart(lambda: in_float32(model, 1)).create_infer_request()


def quantised(graph: Path, spec: profiles.InputSpec, items: Sequence[Item]) -> Any:
    """Quantise the graph after training; the first layers and the last are no better left in float32."""
    import nncf  # type: ignore[import-not-found, unused-ignore]
    from nncf.quantization import (  # type: ignore[import-not-found, unused-ignore]
        advanced_parameters as advanced,
    )

    some = evaluate.sampled(items, QUANTISED_ON)
    shown = [preprocess.views(film.numpy(), spec) for film in inference.prepared(some, spec)]
    model = ov.Core().read_model(graph)
    model.reshape(list(shown[0].shape))
    return nncf.quantize(
        model,
        nncf.Dataset(shown),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(shown),
        advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=advanced.OverflowFix.ENABLE),
    )


def fitted(profile: Profile, recipe: Recipe, items: Sequence[Item], shown: Sequence[Scores]) -> Profile:
    """Calibrate as `cxr-node calibrate` does, without writing."""
    positive, groups = (np.array([getattr(item, name) for item in items]) for name in ("positive", "group"))
    slope, intercept = platt(calibrate.pooled(items, shown[0], shown[1:]), recipe.operating.prevalence)
    point, _ = calibrate.operating_point(recipe, positive, groups, shown[0], slope=slope, intercept=intercept)
    return replace(profile, slope=slope, intercept=intercept, operating_point=OperatingPoint(**point.model_dump()))


def outcomes(profile: Profile, items: Sequence[Item], scores: Scores) -> Outcomes:
    """Judge films as serving does."""
    verdict = np.array([str(one.verdict) for one in evaluate.decisions_of(profile, scores)])
    return Outcomes(
        positive=np.array([item.positive for item in items]),
        groups=np.array([item.group for item in items]),
        probability=scores.probability(profile.slope, profile.intercept),
        verdict=verdict,
        answered=verdict != str(Verdict.INDETERMINATE),
    )


def row(name: str, now: Outcomes, then: Outcomes) -> str:
    """One line of the table: figures, and the differences from what is served."""
    moved = np.abs(now.probability - then.probability)
    turned = (now.verdict != then.verdict) & now.answered & then.answered
    figures = " | ".join(metrics.interval(one) for one in metrics.rates(now, FIGURES).values())
    differ = f"{moved.max():.3f}, {moved.mean():.4f} | {(now.verdict != then.verdict).mean():.1%} | {turned.sum()}"
    return f"| {name} | {differ} | {figures} |"


def speed(ways: dict[str, tuple[Any, int]], film: Floats) -> dict[str, float]:
    """Processor time of one film, by turns: medians, ms."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (request, views) in ways.items():
            shown = np.ascontiguousarray(film[:views])
            request.infer([shown])
            begun = time.process_time()
            request.infer([shown])
            took[name].append((time.process_time() - begun) * 1e3)
    return {name: float(np.median(each)) for name, each in took.items()}


def maps_alike(one: Seen, other: Seen) -> str:
    """Correlation of heat maps, and how often their peaks share a cell."""
    flat = [each.activation.reshape(len(each.activation), -1) for each in (one, other)]
    found = [np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True) if a.any() and b.any()]
    same = np.mean(flat[0].argmax(axis=1) == flat[1].argmax(axis=1))
    return (
        f"maps: correlation {np.median(found):.3f}, 5th percentile {np.quantile(found, 0.05):.3f}; {same:.0%} same peak"
    )


def main() -> None:
    """Print a table, the speed of each way and how alike the maps are."""
    parser = argparse.ArgumentParser(prog="python -m tools.cheaper_network", description=__doc__)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--positive", action="append", default=[])
    parser.add_argument("--negative", action="append", default=[])
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--int8-of", type=Path, help="manifest of films that training saw")
    parser.add_argument("--films", type=int, help="so many of each part, to try it out")
    asked = parser.parse_args()
    profile, recipe = profiles.load(asked.profile), recipe_of(asked.profile)
    graph = graph_file.graph(profile)
    shown_in_all = profile.input.model_copy(update={"views": tuple(Shown)})  # whichever the profile takes
    profile = replace(profile, input=shown_in_all)

    def part(name: str, manifest: Path | None) -> list[Item]:
        labels = Labels(manifest=manifest, positive=tuple(asked.positive), negative=tuple(asked.negative))
        chosen = held_out(asked.profile, asked.data, None if manifest else name, default=name, labels=labels)[0]
        return evaluate.sampled(chosen, asked.films) if asked.films else chosen

    known = part("calibration", asked.manifest)
    judged = part("validation", asked.manifest) if asked.manifest is None else known
    stats, every = weights_file.statistics(profile.weights_path), range(len(Shown))
    models = {"float32": ov.Core().read_model(graph)}
    if asked.int8:
        models["int8"] = quantised(graph, profile.input, part("training", asked.int8_of))
    requests = {name: request_of(model, profile.input, len(every)) for name, model in models.items()}
    inputs = [inference.prepared(known, profile.input), *calibrate.copied(recipe, known)]
    films = inference.prepared(judged, profile.input)
    seen = {name: [see(one, profile.input, each) for each in (*inputs, films)] for name, one in requests.items()}

    def answers(name: str, rows: Sequence[int]) -> Outcomes:
        own = stats
        if name != "float32":  # its features are not quite the same: their edge is
            clean = seen[name][0]
            own = ood_distance.normalised(
                {k: v for k, v in stats.items() if k != weights_file.LEARNED}, clean.signature, clean.strangeness
            )
        scores = [each.scores(own, rows) for each in seen[name]]
        return outcomes(fitted(profile, recipe, known, scores[:-1]), judged, scores[-1])

    then = answers("float32", every)
    print("| | probability: most, mean | other verdicts | turned | AUC | answered | right |\n|" + "---|" * 7)
    for views in SOME_VIEWS:
        print(row(", ".join(views), answers("float32", [tuple(Shown).index(view) for view in views]), then))
    ways = {
        "four views": (requests["float32"], 4),
        "two views": (request_of(ov.Core().read_model(graph), profile.input, 2), 2),
    }
    if asked.int8:
        print(row("int8, four views", answers("int8", every), then))
        print(maps_alike(seen["float32"][-1], seen["int8"][-1]))
        ways["int8, four views"] = requests["int8"], 4
    shown = preprocess.views(films[0].numpy(), profile.input)
    print("; ".join(f"{name} {ms:.1f} ms" for name, ms in speed(ways, shown).items()))


if __name__ == "__main__":
    main()
