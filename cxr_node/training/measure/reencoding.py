"""The same image, stored another way: does the answer stay?

Knows no label. JPEG as pictures come; bits, MONOCHROME1 and windows as a DICOM header carries them, read by the same
functions as in the node (PS3.3 C.7.6.3.1.2, C.11.2.1.2); sizes by resampling.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr_node.config.schema import Admission
from cxr_node.dicom import from_picture
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.domain import Rejected, Verdict
from cxr_node.model import preprocess
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import DRAWS, TAIL, Floats, Interval
from cxr_node.training.measure.evaluate import Judge, decisions_of

Pixels = NDArray[np.float32]
WORST_SHARE = 0.95
"""The largest move is judged at this quantile: one unsure image more or less does not decide."""
RULES = Admission()


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def through(image: Pixels) -> Pixels:
        coded = io.BytesIO()
        Image.fromarray(_stored(image, 8)).save(coded, "JPEG", quality=quality)
        return np.asarray(Image.open(coded), dtype=np.float32) / 255.0

    return through


def _dicom(bits: int, **attributes: str | int | None) -> Callable[[Pixels], Pixels]:
    """As a DX image of so many Bits Stored; MONOCHROME1 stores the complement of what it shows."""

    def through(image: Pixels) -> Pixels:
        inverse = attributes.get("PhotometricInterpretation") == "MONOCHROME1"
        values = _stored(1.0 - image if inverse else image, bits)
        shape = "INVERSE" if inverse else "IDENTITY"
        depth = {"BitsStored": bits, "HighBit": bits - 1}
        source = header.read(from_picture.of_values(values, PresentationLUTShape=shape, **depth, **attributes))
        if isinstance(source, Rejected):
            raise ValueError(source.sentence)  # our own header
        return pixels.decode(source, RULES).pixels

    return through


def _sized(long_side_px: int) -> Callable[[Pixels], Pixels]:
    def through(image: Pixels) -> Pixels:
        scale = long_side_px / max(image.shape)
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        resized = Image.fromarray(_stored(image, 8)).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(resized, dtype=np.float32) / 255.0

    return through


NO_WINDOW: Mapping[str, None] = {"WindowCenter": None, "WindowWidth": None}
REENCODINGS: Mapping[str, Callable[[Pixels], Pixels]] = {
    **{f"JPEG quality {quality}": _jpeg(quality) for quality in (30, 50, 70, 85, 100)},
    **{f"{bits} bits, no window": _dicom(bits, **NO_WINDOW) for bits in (8, 10, 12, 16)},
    "MONOCHROME1, 8 bits": _dicom(8, PhotometricInterpretation="MONOCHROME1"),
    "MONOCHROME1, 12 bits": _dicom(12, PhotometricInterpretation="MONOCHROME1", **NO_WINDOW),
    "window a tenth narrower": _dicom(12, WindowCenter="2048", WindowWidth="3686"),
    "window a quarter wider": _dicom(12, WindowCenter="2048", WindowWidth="5120"),
    "window darker": _dicom(12, WindowCenter="2300", WindowWidth="4096"),
    "sigmoid window": _dicom(12, WindowCenter="2048", WindowWidth="4096", VOILUTFunction="SIGMOID"),
    **{f"{size_px} px": _sized(size_px) for size_px in (224, 512, 1024, 3000)},
}
"""What is changed -> how. A window that cuts a tenth of the range is what another console's default does."""


def measure_reencodings(judge: Judge, items: Sequence[Item], on_image: Callable[[], None]) -> dict[str, Any]:
    """Compare the answers to re-encoded images with those to the images as they are.

    Returns
    -------
    images; `move`, the 95th percentile of |change of the probability| over images and variants, with its interval;
    `largest`; `flips` from PNEUMONIA to NORMAL or back and `changes` of the verdict at all, as counts among
    `answers`; the same by variant
    """
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = list(pool.map(lambda item: _shown(item, judge), items))  # (variants + 1, 1, size_px, size_px) each
    scored = judge.score(torch.cat(rows), on_image)
    shape = (len(items), 1 + len(REENCODINGS))
    probability = judge.probability(scored).reshape(shape)
    verdict = np.array([str(one.verdict) for one in decisions_of(judge.profile, scored)]).reshape(shape)
    moved = np.abs(probability[:, 1:] - probability[:, :1])  # (images, variants)
    changed = verdict[:, 1:] != verdict[:, :1]
    unsure = str(Verdict.INDETERMINATE)
    flipped = changed & (verdict[:, 1:] != unsure) & (verdict[:, :1] != unsure)
    parts = {name: slice(place, place + 1) for place, name in enumerate(REENCODINGS)}
    by_variant = {name: _moves(moved[:, one], changed[:, one], flipped[:, one]) for name, one in parts.items()}
    return {"images": len(items), **_moves(moved, changed, flipped), "variants": by_variant}


def _shown(item: Item, judge: Judge) -> torch.Tensor:
    image = images.load(item)
    copies = [image, *(through(image) for through in REENCODINGS.values())]
    return torch.from_numpy(np.stack([preprocess.prepare(copy, judge.profile.input) for copy in copies]))[:, None]


def _moves(moved: Floats, changed: bootstrap.Bools, flipped: bootstrap.Bools) -> dict[str, Any]:
    return {
        "move": _worst(moved).as_json(),
        "largest": round(float(moved.max()), 4),
        "flips": int(flipped.sum()),
        "changes": int(changed.sum()),
        "answers": int(moved.size),
    }


def _worst(moved: Floats) -> Interval:
    """95th percentile of the moves, bootstrapped over images: all are of different patients."""
    drawn = np.random.default_rng(0).integers(len(moved), size=(DRAWS, len(moved)))
    worst = np.quantile(moved[drawn].reshape(DRAWS, -1), WORST_SHARE, axis=1)
    low, high = (float(bound) for bound in np.quantile(worst, [TAIL, 1.0 - TAIL]))
    value = float(np.quantile(moved, WORST_SHARE))
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _stored(image: Pixels, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    values = np.rint(np.clip(image, 0.0, 1.0) * ((1 << bits) - 1))
    return values.astype(np.uint8) if bits <= 8 else values.astype(np.uint16)
