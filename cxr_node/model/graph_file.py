"""The network of a profile as a graph that needs no torch: which files, bound to which weights, right to what answers.

Knows no torch and no runtime. `export` writes, `openvino_runtime` reads. Beside a profile's other files lie

    network.xml, network.bin   the graph and its constants (OpenVINO IR)
    network.yaml               sha256 of both and of the weights they were made of; torch's own answers on golden inputs
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_node.errors import ModelError
from cxr_node.model.preprocess import prepare, views
from cxr_node.model.profile import InputSpec, Profile, Strict, read, sha256

GRAPH, DESCRIPTION = "network.xml", "network.yaml"
FILES = (GRAPH, "network.bin")
_DRAWN = Path(__file__).parents[1] / "demo_radiographs"
_SHARES = (0.5, 0.65)
"""Of the opaque image in a mixture: there the answer is neither 0 nor 1, and shows a rounding."""
_FEW = 4

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
    return told


def golden_inputs(spec: InputSpec) -> Floats:
    """Draw what every runtime must judge alike: three clear and three opaque phantoms, and mixtures of each two.

    Returns
    -------
    float32, shape (24, views, 1, size_px, size_px)
    """
    return np.stack([_seen(spec, *each) for each in _mixtures()])


def trial(spec: InputSpec, *, few: bool = False) -> tuple[Floats, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Show each golden input in one view, the next one in the next view, as many to a call as there are views.

    Parameters
    ----------
    few : four alone: a clear phantom, an opaque one, and two mixtures

    Returns
    -------
    Float32, shape (calls, views, 1, size_px, size_px); and of each of them input and view, as `golden_logits` has them,
    both of shape (calls, views).
    """
    mixtures, count = _mixtures(), len(spec.views)
    calls = -(-(_FEW if few else len(mixtures)) // count)
    inputs = (np.arange(calls * count) * (5 if few else 1) % len(mixtures)).reshape(calls, count)
    shown = np.broadcast_to(np.arange(count), inputs.shape)
    pairs = zip(inputs.ravel(), shown.ravel(), strict=True)
    seen = np.stack([_seen(spec, *mixtures[each])[view] for each, view in pairs])
    return seen.reshape(*inputs.shape, *seen.shape[1:]), (inputs, shown)


def _mixtures() -> list[tuple[str, str, float]]:
    """Name two phantoms of each golden input, and the share of the second."""
    clear, opaque = ([f"{kind}-{number}" for number in (1, 2, 3)] for kind in ("clear", "opacity"))
    alone = [(name, name, 0.0) for name in (*clear, *opaque)]
    return alone + [(one, other, share) for share in _SHARES for one in clear for other in opaque]


def _seen(spec: InputSpec, name: str, other: str, share: float) -> Floats:
    one = _drawn(name)
    mixed = one + np.float32(share) * (_drawn(other) - one) if share else one
    return views(prepare(mixed, spec), spec)


@functools.lru_cache(maxsize=6)
def _drawn(name: str) -> Floats:
    with Image.open(_DRAWN / f"{name}.jpg") as image:
        return np.asarray(image.convert("L").resize((512, 512)), dtype=np.float32) / np.float32(255.0)
