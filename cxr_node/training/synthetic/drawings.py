"""What is drawn into training images: opacities into lungs, letters, side markers and cables over images; and images
that the classifier must not judge, made from those that it may.

A drawn opacity is surely a sign of disease and surely inside a lung. Marks lie over images of both classes, so that
none can tell the class: of the false alarms of a network trained without them, most carry a large bold "R" with
technical text. Fonts are those that matplotlib carries, so that every machine draws the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Bytes = NDArray[np.uint8]
Maker = Callable[[Bytes, np.random.Generator], Bytes]


def mirrored(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Swap left and right, as when a film is laid the wrong way round."""
    return image[:, ::-1]


def inverted(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Swap black and white, as when the Photometric Interpretation is wrong."""
    return 255 - image


def turned(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Lay the image on its side or on its head, sometimes mirrored too."""
    side = np.rot90(image, int(rng.integers(1, 4)))
    return side[:, ::-1] if rng.random() < 0.3 else side


def part(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Show a part of the body alone: a third to a half of the image, enlarged, away from the chest's middle."""
    size = image.shape[0]
    side = int(rng.uniform(0.25, 0.45) * size)
    row, col = (int(rng.choice([rng.uniform(0.0, 0.15), rng.uniform(0.85, 1.0)]) * (size - side)) for _ in range(2))
    cut = np.rot90(image[row : row + side, col : col + side], int(rng.integers(4)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(cut)).resize((size, size), Image.Resampling.BICUBIC))


def texture(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Noise of one grain or of several, or the image in shuffled tiles: nothing that has anatomy."""
    size = image.shape[0]
    if rng.random() < 0.3:
        tiles = int(rng.integers(3, 7))
        edges = np.array_split(np.arange(size), tiles)
        rows, cols = (np.concatenate([edges[place] for place in rng.permutation(tiles)]) for _ in range(2))
        return np.asarray(image[np.ix_(rows, cols)], dtype=np.uint8)
    grain = ndimage.gaussian_filter(rng.standard_normal((size, size)), float(np.exp(rng.uniform(-1.5, 3.5))))
    low, high = np.quantile(grain, [0.01, 0.99])
    return np.asarray(np.clip((grain - low) / (high - low), 0.0, 1.0) * 255.0, dtype=np.uint8)


MAKERS: Mapping[str, Maker] = {
    "mirrored": mirrored,
    "inverted": inverted,
    "turned": turned,
    "part": part,
    "texture": texture,
}
"""Kind -> how it is made from a training image."""


def draw(images: Bytes, count: int, rng: np.random.Generator) -> Bytes:
    """Make outsiders, mirrored ones most often: they are the hardest to tell.

    Parameters
    ----------
    images : uint8, shape (images, size_px, size_px), of the population
    count : how many

    Returns
    -------
    uint8, shape (count, size_px, size_px)
    """
    kinds = rng.choice(["mirrored", "mirrored", "mirrored", "inverted", "turned", "part", "texture"], size=count)
    return np.stack([MAKERS[str(kind)](images[int(rng.integers(len(images)))], rng) for kind in kinds])


Floats = NDArray[np.float32]

LUNGS = ((0.44, 0.29, 0.28, 0.15), (0.44, 0.71, 0.28, 0.15))
"""Centre row, centre column, half height and half width of each lung field, as shares of a squashed frontal chest
radiograph. Rough on purpose: where exactly an opacity is drawn is decided by how dark the place is."""

LEAST_PEAK = 0.5
"""What is drawn reaches this share of a full consolidation somewhere: less could not be called disease."""


def paste_opacity(image: Floats, rng: np.random.Generator) -> Floats:
    """Draw one to three opacities, or a diffuse pattern over both lungs, in place.

    Parameters
    ----------
    image : float32, shape (size_px, size_px), range [0, 1], changed in place

    Returns
    -------
    float32, shape (size_px, size_px), range [0, 1]: where it was drawn, 1 where the drawing is fullest
    """
    lungs = _dark_lungs(image)
    drawn = _streaks(lungs, rng) if rng.random() < 0.25 else _patches(lungs, rng)
    drawn *= ndimage.gaussian_filter((lungs > 0.08).astype(np.float32), 3.0)  # ribs and diaphragm bound it softly
    drawn *= max(1.0, LEAST_PEAK / max(1e-6, float(drawn.max())))
    inside = image[lungs > 0.3]
    dark, bright = (np.quantile(inside, 0.3), np.quantile(image, 0.9)) if inside.size else (0.3, 0.8)
    reach = max(0.15, float(bright - dark)) * rng.uniform(0.7, 1.1)
    drawn *= (1.0 + 0.25 * _smooth_noise(image.shape, 5.0, rng)).clip(0.4, 1.4)
    filling = np.clip(drawn * rng.uniform(0.6, 1.0), 0.0, 0.95) * np.maximum(dark + reach - image, 0.0)
    image += filling if rng.random() < 0.5 else 0.6 * reach * drawn.clip(0.0, 1.2)  # the latter leaves ribs to be seen
    image.clip(0.0, 1.0, out=image)
    peak = float(drawn.max())
    return drawn / peak if peak > 0.0 else drawn


def _dark_lungs(image: Floats) -> Floats:
    """Prefer the dark of the two rough lung fields: (size_px, size_px), range [0, 1]."""
    rows, cols = image.shape
    row, col = np.mgrid[:rows, :cols].astype(np.float32) + 0.5
    fields = np.zeros(image.shape, dtype=np.float32)
    for centre_row, centre_col, high, wide in LUNGS:
        reach = ((row / rows - centre_row) / high) ** 2 + ((col / cols - centre_col) / wide) ** 2
        fields = np.maximum(fields, np.clip(1.6 * (1.25 - reach), 0.0, 1.0))
    smooth = ndimage.gaussian_filter(image, 4.0)
    inside = smooth[fields > 0.5]
    low, high_grey = np.quantile(inside, [0.05, 0.9])
    darkness = np.clip((high_grey - smooth) / max(1e-3, high_grey - low), 0.0, 1.0)
    return np.asarray(fields * darkness, dtype=np.float32)


def _patches(lungs: Floats, rng: np.random.Generator) -> Floats:
    """Blobs with ragged, soft edges, centred on dark lung."""
    size = lungs.shape[0]
    row, col = np.mgrid[:size, :size].astype(np.float32)
    chance = lungs.ravel().astype(np.float64) + 1e-9
    drawn = np.zeros_like(lungs)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        place = int(rng.choice(lungs.size, p=chance / chance.sum()))
        centre = divmod(place, size)
        high, wide = rng.uniform(0.05, 0.17, size=2) * size
        turn = rng.uniform(0.0, np.pi)
        down, right = row - centre[0], col - centre[1]
        along, across = down * np.cos(turn) + right * np.sin(turn), right * np.cos(turn) - down * np.sin(turn)
        reach = np.sqrt((along / high) ** 2 + (across / wide) ** 2)
        ragged = reach + rng.uniform(0.1, 0.5) * _smooth_noise(lungs.shape, rng.uniform(4.0, 10.0), rng)
        softness = rng.uniform(0.15, 0.6)
        drawn = np.maximum(drawn, rng.uniform(0.5, 1.0) / (1.0 + np.exp((ragged - 0.9) / (0.4 * softness))))
    return np.asarray(drawn, dtype=np.float32)


def _streaks(lungs: Floats, rng: np.random.Generator) -> Floats:
    """Fine, patchy markings through both lungs, as of an interstitial pneumonia."""
    fine = 0.5 * _smooth_noise(lungs.shape, rng.uniform(1.2, 2.0), rng) + 0.5 * _smooth_noise(
        lungs.shape, rng.uniform(3.0, 6.0), rng
    )
    where = 1.0 / (1.0 + np.exp(-3.0 * (_smooth_noise(lungs.shape, 22.0, rng) + rng.uniform(-0.3, 0.8))))
    haze = rng.uniform(0.2, 0.6)
    return np.asarray((haze + fine.clip(0.0, 1.0)) * where * np.sqrt(lungs), dtype=np.float32).clip(0.0, 1.0)


def _smooth_noise(shape: tuple[int, ...], sigma_px: float, rng: np.random.Generator) -> Floats:
    """Smooth noise of standard deviation 1; drawn on a coarse grid, for its detail is not needed."""
    step = max(1, int(sigma_px // 2))
    rows, cols = shape
    coarse = rng.standard_normal((-(-rows // step) + 1, -(-cols // step) + 1)).astype(np.float32)
    smooth = ndimage.gaussian_filter(coarse, sigma_px / step)
    if step > 1:
        smooth = ndimage.zoom(smooth, step, order=1)
    smooth = smooth[:rows, :cols]
    return np.asarray(smooth / max(1e-6, float(smooth.std())), dtype=np.float32)


_FONT_FOLDER = Path(mpl.get_data_path()) / "fonts" / "ttf"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold")
SIDES = ("R", "L", "R", "L", "D", "S", "RT", "LT", "PA", "AP", "R PA", "L AP")
WORDS = ("ERECT", "SUPINE", "PORTABLE", "BED", "CHEST", "INSP", "mAs", "KV", "cm", "SID", "EI", "W", "C", "SE", "IM")

Mark = NDArray[np.float32]
"""Opacity, shape (rows, cols), range [0, 1]."""


def bank(count: int, size_px: int, rng: np.random.Generator) -> list[Mark]:
    """Draw `count` stamps for images of size_px x size_px."""
    makers = (_side, _side, _text, _text, _cable)
    return [makers[rng.integers(len(makers))](size_px, rng) for _ in range(count)]


def paste_marks(image: NDArray[np.float32], stamps: Sequence[Mark], rng: np.random.Generator) -> None:
    """Lay one to five stamps over an image, in place; four of five lie near an edge, as real ones do.

    Parameters
    ----------
    image : float32, shape (rows, cols), range [0, 1]
    """
    for _ in range(int(rng.integers(1, 6))):
        stamp = stamps[int(rng.integers(len(stamps)))]
        rows, cols = (min(s, i) for s, i in zip(stamp.shape, image.shape, strict=True))
        top, left = _place(image.shape[0] - rows, rng), _place(image.shape[1] - cols, rng)
        if rng.random() < 0.8:
            _to_edge = int(rng.integers(2))
            top = _near_edge(image.shape[0] - rows, rng) if _to_edge else top
            left = left if _to_edge else _near_edge(image.shape[1] - cols, rng)
        area = image[top : top + rows, left : left + cols]
        grey = rng.uniform(0.75, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.2)
        opacity = stamp[:rows, :cols] * np.float32(rng.uniform(0.5, 1.0))
        if rng.random() < 0.15:
            area *= np.float32(rng.uniform(0.0, 0.5))
        area += opacity * (np.float32(grey) - area)


def _place(room: int, rng: np.random.Generator) -> int:
    return int(rng.integers(max(1, room + 1)))


def _near_edge(room: int, rng: np.random.Generator) -> int:
    offset = int(rng.uniform(0.0, 0.18) * max(room, 0))
    return offset if rng.random() < 0.5 else max(room, 0) - offset


def _font(size_px: float, rng: np.random.Generator) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT_FOLDER / f"{FONTS[int(rng.integers(len(FONTS)))]}.ttf", max(5, round(size_px)))


def _side(size_px: int, rng: np.random.Generator) -> Mark:
    """Draw a side marker: a large letter, sometimes framed, sometimes with technical text below."""
    height = size_px * rng.uniform(0.04, 0.16)
    text = SIDES[int(rng.integers(len(SIDES)))]
    if rng.random() < 0.3:
        text += "\n" + _technical(rng)
    return _lettered(text, _font(height, rng), rng)


def _text(size_px: int, rng: np.random.Generator) -> Mark:
    lines = [_technical(rng) for _ in range(int(rng.integers(1, 5)))]
    return _lettered("\n".join(lines), _font(size_px * rng.uniform(0.025, 0.07), rng), rng)


def _technical(rng: np.random.Generator) -> str:
    match int(rng.integers(4)):
        case 0:
            return f"{WORDS[int(rng.integers(len(WORDS)))]}{int(rng.integers(1, 130))}"
        case 1:
            return f"{int(rng.integers(24)):02d}:{int(rng.integers(60)):02d}"
        case 2:
            return WORDS[int(rng.integers(len(WORDS)))]
        case _:
            return "".join(rng.choice(list("0123456789ABCDEFGHKLMNPRSTUVWX./-"), size=int(rng.integers(2, 12))))


def _lettered(text: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Mark:
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (round(edge) for edge in probe.multiline_textbbox((0, 0), text, font=font))
    image = Image.new("L", (right - left + 6, bottom - top + 6))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((3 - left, 3 - top), text, font=font, fill=255)
    if rng.random() < 0.15:
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=255)
    if rng.random() < 0.4:
        image = image.rotate(rng.uniform(-25.0, 25.0), Image.Resampling.BILINEAR, expand=True)
    if rng.random() < 0.1:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image, dtype=np.float32) / 255.0


def _cable(size_px: int, rng: np.random.Generator) -> Mark:
    """Draw a lead or a tube: a bent line of one to three pixels."""
    span = int(size_px * rng.uniform(0.3, 0.9))
    image = Image.new("L", (span, span))
    corners = rng.uniform(0.0, span, size=(4, 2))
    steps = np.linspace(0.0, 1.0, 24)[:, None]
    bends = [(1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3]
    curve = sum(bend * corner for bend, corner in zip(bends, corners, strict=True))
    points = [(float(x), float(y)) for x, y in np.asarray(curve)]
    ImageDraw.Draw(image).line(points, fill=255, width=int(rng.integers(1, 4)), joint="curve")
    return np.asarray(image, dtype=np.float32) / 255.0
