"""Images that the profile was not made for: does it say so?

Knows no label. Refused is what the node's admission would not let through (`dicom.admission.check_pixels`) or what
the profile calls UNCERTAIN; the age gate and other headers are not asked, for the pixels alone must be enough.
Training makes outsiders too (`training.outsiders`), on purpose by other code: these here start from the source file
and not from the small copy that was learned from, and their noise is of another kind, so that a mistake in the lesson
is not also in the examination.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cxr_node.dicom.read import admission
from cxr_node.domain import Radiograph, Verdict, View
from cxr_node.errors import DataError
from cxr_node.model import preprocess
from cxr_node.training.data import images as data
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.evaluate import Judge, decisions_of

Pixels = NDArray[np.float32]
REFUSED = frozenset({str(Verdict.INDETERMINATE), str(Verdict.REJECTED)})
KINDS: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "inverted": lambda image, rng: 1.0 - image,
    "mirrored": lambda image, rng: image[:, ::-1],
    "rotated by 90 degrees": lambda image, rng: np.rot90(image),
    "rotated by 180 degrees": lambda image, rng: np.rot90(image, 2),
    "noise": lambda image, rng: _noise(image.shape, rng),
}


def foreign(folder: Path, count: int) -> list[Item]:
    """List images of a folder, whatever they show: `count` of them, evenly from all.

    Raises
    ------
    DataError : no folder, or no image in it
    """
    files = sorted(path for path in folder.rglob("*") if data.is_image(path)) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no image (PNG, JPEG or DICOM)")
    taken = [files[place] for place in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    return [Item(path=path, positive=False, kind="foreign", group=str(path), digest="") for path in taken]


def measure(
    judge: Judge, items: Sequence[Item], others: Mapping[str, Sequence[Item]], on_image: Callable[[], None]
) -> dict[str, Any]:
    """Count what is refused of changed images, and of foreign ones.

    Parameters
    ----------
    items : the profile's own, to be changed
    others : name -> images that are foreign as they are

    Returns
    -------
    by kind and for `all` of them together: images, the share refused with its interval, the verdicts
    """
    rng = np.random.default_rng(0)
    images = {kind: [change(data.load(item), rng) for item in items] for kind, change in KINDS.items()}
    images |= {name: [data.load(item) for item in foreigners] for name, foreigners in others.items()}
    said = {kind: _verdicts(judge, kept, on_image) for kind, kept in images.items()}
    names = {kind: [str(place) for place in range(len(kept))] for kind, kept in said.items()}
    names |= {name: [f"{name} {place}" for place in range(len(said[name]))] for name in others}
    together = _figures([word for one in said.values() for word in one], [g for one in names.values() for g in one])
    return {"all": together, "kinds": {kind: _figures(said[kind], names[kind]) for kind in said}}


def _verdicts(judge: Judge, images: Sequence[Pixels], on_image: Callable[[], None]) -> list[str]:
    shown = [preprocess.prepare(np.ascontiguousarray(image), judge.profile.input) for image in images]
    decisions = decisions_of(judge.profile, judge.score(torch.from_numpy(np.stack(shown))[:, None], on_image))
    return [
        judge.profile.target.word(Verdict.REJECTED if _is_refused(image) else decision.verdict)
        for image, decision in zip(images, decisions, strict=True)
    ]


def _is_refused(image: Pixels) -> bool:
    radiograph = Radiograph(pixels=image, pixel_aspect=1.0, view=View.UNKNOWN, pixel_sha256="")
    return admission.check_pixels(radiograph) is not None


def _figures(said: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    refused = bootstrap.share(np.array([word in REFUSED for word in said]), np.array(groups))
    return {"images": len(said), "refused": refused.as_json(), "verdicts": dict(sorted(Counter(said).items()))}


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """White noise, or clouds: each as likely."""
    white = rng.standard_normal(shape)
    if rng.random() < 0.5:
        white = ndimage.gaussian_filter(white, rng.uniform(1.0, 12.0))
        white /= white.std()
    return np.clip(0.5 + 0.2 * white, 0.0, 1.0).astype(np.float32)
