"""One radiograph in: calibrated probability, spread over views, distance, and where the network looked.

An answer depends on the radiograph and the profile alone, also where several threads share a predictor. Which runtime
computed it moves the probability by less than `LARGEST_DIFFERENCE` on golden inputs, or the runtime is refused.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cxr_node import heatmap
from cxr_node.domain import Examination, Heatmap, Measurement, Prediction, Radiograph, RuntimeKind, Verdict
from cxr_node.errors import ModelError
from cxr_node.model import graph_file, lungs, pooled, regions, weights_file
from cxr_node.model.decision import decide
from cxr_node.model.ood_distance import distance
from cxr_node.model.preprocess import borders, pictures, views
from cxr_node.model.profile import Profile, sha256
from cxr_node.model.runtime import Company, NetworkOutput, Runtime
from cxr_node.model.site_calibration import at_site
from cxr_node.model.torchxrayvision import op_norm

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LARGEST_DIFFERENCE = 1e-4
"""Of the probability, between a runtime and torch in float32, on any golden input.

Two ways of computing in float32 differ by 2e-6 here; bfloat16 moves a probability by 1e-3 (a sharp network) to 0.06.
"""


def calibrated(logits: NDArray[np.floating], slope: float, intercept: float) -> Doubles:
    """Platt's sigmoid(slope * logit + intercept): any shape, same shape in [0, 1]."""
    return _sigmoid(slope * logits.astype(np.float64) + intercept)


def _sigmoid(numbers: Doubles) -> Doubles:
    """Logistic function; written here, for scipy.special takes 60 ms of each start to import."""
    with np.errstate(over="ignore"):  # exp is infinite, and the answer 0
        return np.asarray(1.0 / (1.0 + np.exp(-numbers)))


def image_logits(logits: Floats) -> Floats:
    """Mean over views, the logit that is calibrated: (images, views, labels) -> (images, labels)."""
    return np.asarray(logits.mean(axis=1))


def spread(probabilities: Doubles) -> Doubles:
    """Largest difference between views: calibrated (images, views, labels) -> (images, labels), in [0, 1]."""
    return np.asarray(np.ptp(probabilities, axis=1))


def divided(judged: float, logits: Floats, positive: Sequence[bool]) -> Doubles:
    """Divide a calibrated probability among the classes that it stands for, as the softmax does.

    Parameters
    ----------
    judged : calibrated probability of the judged label
    logits : shape (classes,), as `network.OverClasses` answers them
    positive : whether each class is one of the judged label

    Returns
    -------
    shape (classes,), in [0, 1]; the positive ones sum to `judged`, the others to the rest
    """
    softmax, chosen = _sigmoid(logits.astype(np.float64)), np.array(positive)
    total = np.where(chosen, softmax[chosen].sum(), softmax[~chosen].sum()).clip(1e-300)
    return np.asarray(softmax / total * np.where(chosen, judged, 1.0 - judged))


class ProfilePredictor:
    """A profile's classifier on this machine; `pipeline.Predictor`.

    For as many threads at once as its runtime.

    `stats` : as `model.ood_distance.normalised` returns them; {} where no distance is judged
    """

    def __init__(self, profile: Profile, computes: Runtime, stats: Mapping[str, Floats]) -> None:
        self._profile = profile
        self._stats = stats
        self.runtime = computes

    @property
    def profile(self) -> Profile:
        """The profile this predictor was loaded from."""
        return self._profile

    @property
    def batch(self) -> int:
        """How many radiographs at once pay."""
        return self.runtime.batch

    @property
    def is_shared(self) -> bool:
        """Whether several threads may ask at once."""
        return self.runtime.is_shared

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph; as `examine_all`."""
        return self.examine_all([radiograph])[0]

    def examine_all(self, radiographs: Sequence[Radiograph]) -> list[Examination]:
        """Predict and explain radiographs, in one call of the runtime; none of them touches another's answer.

        Parameters
        ----------
        radiographs : each with pixels float32, shape (rows, cols), range [0, 1], larger means more attenuating

        Raises ModelError: the network failed or answered something that is no number.
        """
        if not radiographs:
            return []
        spec = self._profile.input
        shown = np.stack([views(pictures(each.pixels, spec), spec) for each in radiographs])
        output = self.runtime.infer(shown)
        return [self._examination(output, place, each) for place, each in enumerate(radiographs)]

    def _examination(self, output: NetworkOutput, place: int, radiograph: Radiograph) -> Examination:
        profile = self._profile
        logits = output.logits[place]  # (views, labels)
        by_view, answer = self._numbers(logits)
        if profile.site is not None:  # the spread stays on the profile's own scale
            answer[profile.judged] = at_site(float(answer[profile.judged]), *profile.site)
        trained = profile.op_norm or (0.5,) * len(profile.answered)
        answers = zip(profile.answered, answer[: len(profile.answered)].tolist(), trained, strict=True)
        prediction = Prediction(
            probability={label: number for label, number, at in answers if at is not None},
            spread=float(np.ptp(by_view[:, profile.judged])),
            distance=self._distance(output, place),
            classes=self._classes(logits, float(answer[profile.judged])),
        )
        if not np.isfinite([*prediction.probability.values(), prediction.spread, prediction.distance or 0.0]).all():
            raise ModelError(f"profile {profile.name}: the network's answer is no number")
        measurement = Measurement(
            logit=float(image_logits(logits[None])[0, profile.judged]),
            distance=prediction.distance,
            features=pooled.packed(output.signature[place]),
        )
        explained = self._explain(output.activation[place], radiograph, prediction)
        return Examination(prediction=prediction, heatmap=explained, measurement=measurement)

    def _distance(self, output: NetworkOutput, place: int) -> float | None:
        if not self._stats:
            return None
        one = slice(place, place + 1)
        strangeness = None if output.strangeness is None else output.strangeness[one]
        return float(distance(output.signature[one], self._stats, strangeness)[0])

    def _numbers(self, logits: Floats) -> tuple[Doubles, Doubles]:
        """Calibrate, or score as published: there the plain view alone answers, the others tell of doubt.

        (views, labels) -> (views, labels), (labels,)
        """
        slope, intercept, thresholds = self._profile.slope, self._profile.intercept, self._profile.op_norm
        by_view = calibrated(logits, slope, intercept)
        if thresholds is None:
            return by_view, calibrated(image_logits(logits[None])[0], slope, intercept)
        scores = op_norm(by_view, thresholds)
        return scores, scores[0]

    def _classes(self, logits: Floats, judged: float) -> dict[str, float]:
        """Divide the judged probability among the classes, where there are any; they are the last labels."""
        classes = self._profile.network.classes
        if not classes:
            return {}
        mean = logits.mean(axis=0)[-len(classes) :]  # (classes,)
        return dict(zip(classes, divided(judged, mean, list(classes.values())).tolist(), strict=True))

    def _explain(self, active: Floats, radiograph: Radiograph, prediction: Prediction) -> Heatmap:
        cells, shape, point = heatmap.scaled(active), radiograph.pixels.shape, self._profile.operating_point
        border = borders(radiograph.pixels, self._profile.input)
        is_outlined = cells.any() and decide(prediction, point).verdict is Verdict.POSITIVE
        return Heatmap(
            cells=cells,
            border=border,
            regions=regions.regions(cells, border, shape, lungs.fit(radiograph.pixels)) if is_outlined else (),
            label=point.label,
            layer=self.runtime.layer,
        )


class BatchingPredictor:
    """A predictor that threads may share; `pipeline.Predictor`. Radiographs that come while it is busy go together.

    Nobody waits for company: a thread that finds the predictor free is served at once, and what has gathered meanwhile
    goes next, up to `batch` radiographs in one call. One radiograph's failure is its own.
    """

    def __init__(self, predictor: ProfilePredictor) -> None:
        self._predictor = predictor
        self._waiting: deque[tuple[Radiograph, Future[Examination]]] = deque()
        self._turn = threading.Lock()

    @property
    def profile(self) -> Profile:
        """The predictor's."""
        return self._predictor.profile

    @property
    def batch(self) -> int:
        """How many threads at once pay."""
        return self._predictor.batch

    def examine(self, radiograph: Radiograph) -> Examination:
        """Predict and explain one radiograph, perhaps together with those of other threads."""
        answer: Future[Examination] = Future()
        self._waiting.append((radiograph, answer))
        with self._turn:  # whoever had it before may have answered for this one too
            while not answer.done():
                self._examine([self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))])
        return answer.result()

    def _examine(self, some: Sequence[tuple[Radiograph, Future[Examination]]]) -> None:
        try:
            examinations = self._predictor.examine_all([radiograph for radiograph, _ in some])
        except Exception as error:
            if len(some) > 1:  # whose fault is it? each one's alone
                for one in some:
                    self._examine([one])
            else:
                some[0][1].set_exception(error)
            return
        for (_, answer), examination in zip(some, examinations, strict=True):
            answer.set_result(examination)


def load_predictor(
    profile: Profile,
    threads: int = 0,
    wanted: RuntimeKind = RuntimeKind.AUTO,
    *,
    for_one: bool = False,
    company: Company | None = None,
) -> ProfilePredictor:
    """Load a profile's network into the quickest runtime that answers as torch in float32 does.

    Parameters
    ----------
    threads : threads of inference; 0: all cores of the machine
    wanted : which runtime; AUTO: chosen by itself
    for_one : whoever asks for a single answer waits for four golden inputs, not for all of them
    company : which images are in hand, where there may be several

    Raises ModelError: the weights are not those the profile was loaded with, or no runtime that is wanted can use them,
    or answers right, here.
    """
    if (found := sha256(profile.weights_path)) != profile.weights_sha256:
        raise ModelError(f"{profile.weights_path} was changed: sha256 is {found}, expected {profile.weights_sha256}")
    stats = weights_file.statistics(profile.weights_path)
    if (profile.operating_point.max_distance is None) is bool(stats):
        raise ModelError(f"{profile.folder}: max_distance and the distance.* of the weights belong together")
    # Numpy's products here are small. With a thread for each core one took 0.1 ms alone and 50 ms beside other work.
    threadpool_limits(1, "blas")
    refusals: list[str] = []
    for candidate in candidates(profile, wanted, threads or os.cpu_count() or 1, company):
        if (refusal := refused(candidate, profile, stats, few=for_one)) is None:
            log.info("profile %s %s judges by %s", profile.name, profile.version, candidate.name)
            return ProfilePredictor(profile, candidate, stats)
        refusals.append(refusal)
        log.log(logging.INFO if wanted is RuntimeKind.AUTO else logging.ERROR, "profile %s: %s", profile.name, refusal)
    raise ModelError(f"profile {profile.name}: {'; '.join(refusals)}")


def refused(candidate: Runtime, profile: Profile, stats: Mapping[str, Floats], *, few: bool = False) -> str | None:
    """Let a runtime judge the golden inputs, and say what is wrong with its answers; None: nothing.

    Each input is shown in one of its views, and as many of them as there are views are one call, as those of one image.

    Raises ModelError: it failed, or the statistics are those of another network.
    """
    shown, places = graph_file.trial(profile.input, few=few)
    output = candidate.infer(shown)
    if (output.strangeness is not None) is not (weights_file.LEARNED in stats):
        raise ModelError(f"{profile.folder}: distance.learned and a network that learns outsiders belong together")
    if stats and stats["mean"].shape[1:] != output.signature.shape[1:]:
        raise ModelError(f"{profile.folder}: distance.* is of another network")
    found = calibrated(output.logits[:, :, profile.judged], profile.slope, profile.intercept)  # (calls, views)
    if not np.isfinite(found).all():
        raise ModelError(f"profile {profile.name}: the network's answer is no number")
    if not graph_file.there(profile):
        return None  # then it is torch, the reference, and nobody else
    golden = np.array(graph_file.description(profile).golden_logits, dtype=np.float64)[places]
    difference = float(np.abs(found - calibrated(golden, profile.slope, profile.intercept)).max())
    if difference <= LARGEST_DIFFERENCE:
        return None
    return f"{candidate.name} is refused: a probability differs by {difference:.2g} from torch in float32"


def candidates(
    profile: Profile, wanted: RuntimeKind, threads: int, company: Company | None = None
) -> Iterator[Runtime]:
    """Make what may serve a profile here, the quickest first; who uses them tries each on golden inputs.

    Parameters
    ----------
    wanted : AUTO tries CUDA, OpenVINO, torch; each in float32, whatever shorter numbers the processor multiplies
    threads : of one call
    company : which images are in hand, where there may be several

    Raises ModelError: what is wanted is not installed, or the profile has no exported graph for it.
    """
    if wanted is RuntimeKind.TORCH:
        yield _torch(profile, threads)
        return
    if wanted is RuntimeKind.AUTO and torch_installed() and Path("/dev/nvidiactl").exists():
        yield _torch(profile, threads)
    if graph_file.there(profile):
        from cxr_node.model.openvino_runtime import OpenVINORuntime

        yield OpenVINORuntime(profile, threads, company)
    elif wanted is not RuntimeKind.AUTO or not torch_installed():
        raise ModelError(
            f"{profile.folder} holds no exported network. `cxr-node export {profile.folder}` makes one where torch "
            "is installed (pip install 'cxr-node[torch]')."
        )
    if wanted is RuntimeKind.AUTO and torch_installed():
        yield _torch(profile, threads)


def torch_installed() -> bool:
    """Tell whether torch could be imported, without paying for it."""
    return importlib.util.find_spec("torch") is not None


def _torch(profile: Profile, threads: int) -> Runtime:
    if not torch_installed():
        raise ModelError("the runtime torch is not installed: pip install 'cxr-node[torch]'")
    # Before torch is loaded: on busy cores, threads that spin while they wait made one image take 1.9 s, not 0.08 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from cxr_node.model.torch_runtime import load

    return load(profile, threads)
