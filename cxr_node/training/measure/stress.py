"""Two stress tests: the same image stored another way, and images that the profile was not made for.

The answer must stay where JPEG, bits, MONOCHROME1, windows or size change (PS3.3 C.7.6.3.1.2, C.11.2.1.2). An outsider
must be refused by `admission.check_pixels` or be UNCERTAIN; its pixels alone must be enough. Training makes outsiders
too (`synthetic.drawings`), on purpose by other code: a mistake in the lesson must not be in the examination as well.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxr_node.config.schema import Admission
from cxr_node.dicom import from_picture
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import admission, header
from cxr_node.domain import Radiograph, Verdict, View
from cxr_node.errors import DataError
from cxr_node.model import preprocess
from cxr_node.outcome import Rejected
from cxr_node.training.data import images
from cxr_node.training.data.images import Item
from cxr_node.training.measure import bootstrap
from cxr_node.training.measure.bootstrap import DRAWS, TAIL, Floats, Interval
from cxr_node.training.measure.evaluate import Scorer, decisions_of

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


def measure_reencodings(scorer: Scorer, items: Sequence[Item], on_image: Callable[[], None]) -> dict[str, Any]:
    """Compare the answers to re-encoded images with those to the images as they are.

    Returns images; `move`, the 95th percentile of |change of the probability| over images and variants, with its
    interval; `largest`; `flips` from PNEUMONIA to NORMAL or back and `changes` of the verdict at all, as counts among
    `answers`; the same by variant
    """
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = list(pool.map(lambda item: _shown(item, scorer), items))  # (variants + 1, 1, size_px, size_px) each
    scored = scorer.score(torch.cat(rows), on_image)
    shape = (len(items), 1 + len(REENCODINGS))
    probability = scorer.probability(scored).reshape(shape)
    verdict = np.array([str(one.verdict) for one in decisions_of(scorer.profile, scored)]).reshape(shape)
    moved = np.abs(probability[:, 1:] - probability[:, :1])  # (images, variants)
    changed = verdict[:, 1:] != verdict[:, :1]
    unsure = str(Verdict.INDETERMINATE)
    flipped = changed & (verdict[:, 1:] != unsure) & (verdict[:, :1] != unsure)
    parts = {name: slice(place, place + 1) for place, name in enumerate(REENCODINGS)}
    by_variant = {name: _moves(moved[:, one], changed[:, one], flipped[:, one]) for name, one in parts.items()}
    return {"images": len(items), **_moves(moved, changed, flipped), "variants": by_variant}


def _shown(item: Item, scorer: Scorer) -> torch.Tensor:
    image = images.load(item)
    copies = [image, *(through(image) for through in REENCODINGS.values())]
    return torch.from_numpy(np.stack([preprocess.pictures(copy, scorer.profile.input) for copy in copies]))


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


REFUSALS = frozenset({str(Verdict.INDETERMINATE), str(Verdict.REJECTED)})
OUTSIDERS: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "inverted": lambda image, rng: 1.0 - image,
    "mirrored": lambda image, rng: image[:, ::-1],
    "rotated by 90 degrees": lambda image, rng: np.rot90(image),
    "rotated by 180 degrees": lambda image, rng: np.rot90(image, 2),
    "noise": lambda image, rng: _noise(image.shape, rng),
}


def foreign(folder: Path, count: int) -> list[Item]:
    """List images of a folder, whatever they show: `count` of them, evenly from all.

    Raises DataError: no folder, or no image in it.
    """
    files = sorted(path for path in folder.rglob("*") if images.is_image(path)) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no image (PNG, JPEG or DICOM)")
    taken = [files[place] for place in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    return [Item(path=path, positive=False, kind="foreign", group=str(path), digest="") for path in taken]


def measure_outsiders(
    scorer: Scorer, items: Sequence[Item], others: Mapping[str, Sequence[Item]], on_image: Callable[[], None]
) -> dict[str, Any]:
    """Count what is refused of changed images, and of foreign ones.

    `items` : the profile's own, to be changed
    `others` : name -> images that are foreign as they are
    Returns by kind and for `all` of them together: images, the share refused with its interval, the verdicts
    """
    rng = np.random.default_rng(0)
    shown = {kind: [change(images.load(item), rng) for item in items] for kind, change in OUTSIDERS.items()}
    shown |= {name: [images.load(item) for item in foreigners] for name, foreigners in others.items()}
    said = {kind: _verdicts(scorer, kept, on_image) for kind, kept in shown.items()}
    names = {kind: [str(place) for place in range(len(kept))] for kind, kept in said.items()}
    names |= {name: [f"{name} {place}" for place in range(len(said[name]))] for name in others}
    together = _refusals([word for one in said.values() for word in one], [g for one in names.values() for g in one])
    return {"all": together, "kinds": {kind: _refusals(said[kind], names[kind]) for kind in said}}


def _verdicts(scorer: Scorer, images: Sequence[Pixels], on_image: Callable[[], None]) -> list[str]:
    shown = [preprocess.pictures(np.ascontiguousarray(image), scorer.profile.input) for image in images]
    decisions = decisions_of(scorer.profile, scorer.score(torch.from_numpy(np.stack(shown)), on_image))
    seen = [Radiograph(pixels=image, pixel_aspect=1.0, view=View.UNKNOWN, pixel_digest="") for image in images]
    said = [
        decision.verdict if admission.check_pixels(one) is None else Verdict.REJECTED
        for one, decision in zip(seen, decisions, strict=True)
    ]
    return [scorer.profile.target.word(verdict) for verdict in said]


def _refusals(said: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    refused = bootstrap.share(np.array([word in REFUSALS for word in said]), np.array(groups))
    return {"images": len(said), "refused": refused.as_json(), "verdicts": dict(sorted(Counter(said).items()))}


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    white = rng.standard_normal(shape)
    if rng.random() < 0.5:
        white = ndimage.gaussian_filter(white, rng.uniform(1.0, 12.0))
        white /= white.std()
    return np.clip(0.5 + 0.2 * white, 0.0, 1.0).astype(np.float32)
