"""The network of a profile as a graph that needs no torch: which files, bound to which weights, right to what answers.

Knows no torch and no runtime. `export` writes, `openvino_runtime` reads. Beside a profile's other files lie

    network.xml, network.bin   the graph and its constants (OpenVINO IR; what was learned as fp16 is kept so)
    network.yaml               sha256 of both and of the weights they were made of; torch's own answers on golden inputs
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.errors import ModelError
from cxr_node.model.preprocess import pictures, views
from cxr_node.model.profile import InputSpec, Profile, Strict, read, sha256

GRAPH, DESCRIPTION = "network.xml", "network.yaml"
FILES = (GRAPH, "network.bin")
_DRAWN = Path(__file__).parents[1] / "demo_radiographs"
_SHARES = (0.5, 0.65)
"""Of the opaque image in a mixture: there the answer is neither 0 nor 1, and shows a rounding."""
_FEW, _STEP = 4, 3
"""Inputs that a single answer waits for, and the step from one to the next: all of two phantoms."""

Floats = NDArray[np.float32]


class Description(Strict):
    """network.yaml."""

    weights_sha256: str
    sha256: dict[str, str]
    made_by: str
    layer: str
    """Which layer the heat map is of."""
    golden_logits: list[list[float]]
    """The judged logit of each view of each of `golden_inputs`, by torch in float32."""


def there(profile: Profile) -> bool:
    """Tell whether somebody exported this profile's network."""
    return (profile.folder / DESCRIPTION).is_file()


def graph(profile: Profile) -> Path:
    """Where the graph lies, verified. Raises ModelError: it was made of other weights, or a file was changed."""
    told = description(profile)
    for name in FILES:
        if (found := sha256(profile.folder / name)) != told.sha256.get(name):
            raise ModelError(f"{profile.folder / name} was changed: sha256 is {found}. Run cxr-node export again.")
    return profile.folder / GRAPH


def description(profile: Profile) -> Description:
    """Read network.yaml. Raises ModelError: it is malformed, or tells of other weights or views."""
    told = read(file := profile.folder / DESCRIPTION, Description)
    if told.weights_sha256 != profile.weights_sha256:
        raise ModelError(
            f"{file} was made of weights {told.weights_sha256}, the folder holds {profile.weights_sha256}. "
            "Run cxr-node export again."
        )
    if any(len(row) != len(profile.input.views) for row in told.golden_logits):
        raise ModelError(f"{file} tells of other views than profile.yaml shows. Run cxr-node export again.")
    if len(told.golden_logits) != len(_mixtures()):
        raise ModelError(f"{file} tells of other golden inputs than this version draws. Run cxr-node export again.")
    return told


def golden_inputs(spec: InputSpec) -> Floats:
    """Draw what every runtime must judge alike: three clear and three opaque phantoms, and mixtures.

    Phantoms are mixed as the network would see them, which takes a quarter of the time: at each start somebody waits.

    Returns
    -------
    float32, shape (12, views, pictures, side_px, side_px)
    """
    phantoms = _Phantoms(spec)
    return np.stack([phantoms.mixed(*each) for each in _mixtures()])


def trial(spec: InputSpec, *, few: bool = False) -> tuple[Floats, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Show each golden input in one view, the next one in the next view, as many to a call as there are views.

    Parameters
    ----------
    few : four alone: a clear phantom, an opaque one, and two mixtures

    Returns
    -------
    Float32, shape (calls, views, pictures, side_px, side_px); and of each of them input and view, as `golden_logits`
    has them, both of shape (calls, views).
    """
    mixtures, count = _mixtures(), len(spec.views)
    calls = -(-(_FEW if few else len(mixtures)) // count)
    inputs = (np.arange(calls * count) * (_STEP if few else 1) % len(mixtures)).reshape(calls, count)
    shown = np.broadcast_to(np.arange(count), inputs.shape)
    phantoms, pairs = _Phantoms(spec), zip(inputs.ravel(), shown.ravel(), strict=True)
    seen = np.stack([phantoms.mixed(*mixtures[each], int(view)) for each, view in pairs])
    return seen.reshape(*inputs.shape, *seen.shape[1:]), (inputs, shown)


def _mixtures() -> list[tuple[str, str, float]]:
    """Name two phantoms of each golden input, and the share of the second."""
    pairs = [(f"clear-{number}", f"opacity-{number}") for number in (1, 2, 3)]
    alone = [(name, name, 0.0) for name in (*(clear for clear, _ in pairs), *(opaque for _, opaque in pairs))]
    return alone + [(*pair, share) for share in _SHARES for pair in pairs]


class _Phantoms:
    """What a network sees of the drawn radiographs; each is read and prepared once."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec
        self._seen: dict[str, Floats] = {}

    def mixed(self, name: str, other: str, share: float, view: int | None = None) -> Floats:
        """Mix two, in all views or in one: (views, pictures, side_px, side_px) or without views."""
        shown = slice(None) if view is None else view
        one, second = self._of(name)[shown], self._of(other)[shown]
        return np.asarray(one + np.float32(share) * (second - one))

    def _of(self, name: str) -> Floats:
        if name not in self._seen:
            with Image.open(_DRAWN / f"{name}.jpg") as image:
                drawn = np.asarray(image.convert("L").resize((512, 512)), dtype=np.float32) / np.float32(255.0)
            self._seen[name] = views(pictures(drawn, self._spec), self._spec)
        return self._seen[name]
