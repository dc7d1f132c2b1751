"""From a folder of radiographs to a training, a validation and a calibration part that share no patient.

A folder holds `manifest.csv` (file, label, optionally patient, sublabel and exact_duplicate_group), or one folder per
class; files are PNG, JPEG or DICOM. DICOM files are decoded as the node does, and without its rules of admission: the
owner of the folder chose what is in it. What is wrong is said in one sentence, before any work starts.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.domain import View
from cxr_node.errors import DataError, InstanceError, ResourceError
from cxr_node.outcome import Rejected

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
STRICT_COLUMNS = frozenset({"label", "sublabel"})
PARTS = ("training", "validation", "calibration")
TAG_COLUMNS = ("sublabel", "age", "sex", "view")
"""Optional columns of manifest.csv by whose values an evaluation is split."""
Doubles = NDArray[np.float64]
LOST_MEAN, LOST_SPREAD = 0.33, 0.16
"""Of log(width / height), drawn for a film whose shape is lost, whatever its class: as of 1,381 films of children."""
Box = tuple[float, float, float, float]
"""Left, top, width and height, as shares of the picture's width and height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One labelled radiograph.

    `positive` : whether the label is the one that is judged
    `word` : the label, as the data words it
    `kind` : sublabel where the data has one, else the label
    `group` : images of one group (one child, or exact copies) stay in one part
    `digest` : sha256 of the file
    `tags` : what the data tell of the columns that were asked for; never what the network sees
    `boxes` : where a radiologist saw the finding
    """

    path: Path
    positive: bool
    kind: str
    group: str
    digest: str
    word: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    boxes: tuple[Box, ...] = ()
    aspect: float | None = None
    """Width over height of the film, where its file was squashed to a square; None: as its file's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a manifest is asked for beside files and labels.

    `tags` : columns by whose values an evaluation is split
    `boxes` : column of radiologists' boxes, [[x, y, width, height], ...] on a grid whose side ends the column's name
    `strict` : whether a word that is not known is an error; else its rows are left out
    """

    tags: Sequence[str] = TAG_COLUMNS
    boxes: str | None = None
    strict: bool = True


AS_USUAL = Asked()


def read(
    folder: Path,
    classes: Mapping[str, bool],
    *,
    label_column: str = "label",
    manifest: Path | None = None,
    asked: Asked = AS_USUAL,
) -> list[Item]:
    """List the labelled images of a folder.

    `folder` : holds manifest.csv, or one folder per class
    `classes` : word -> whether it is positive
    `label_column` : the manifest's column that holds these words. Rows with another word are an error in "label" and
    "sublabel" and are left out in any other column, which may hold more classes than two.
    `manifest` : CSV file to read instead of the folder's manifest.csv; its files are named from `folder`
    Raises DataError: no folder, no image, a missing file, an unknown label, a class without images, a column of no
    manifest.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    listed = manifest or folder / "manifest.csv"
    if label_column not in STRICT_COLUMNS and not listed.is_file():
        raise DataError(f"{folder} has no manifest.csv, so no column {label_column!r}; its folders are the labels")
    rows = _manifest_rows(listed, label_column) if manifest or listed.is_file() else _tree_rows(folder, label_column)
    strict = asked.strict and label_column in STRICT_COLUMNS
    unknown = sorted({row[label_column] for row in rows} - set(classes)) if strict else []
    if unknown:
        raise DataError(f"{folder} has the label {unknown[0]!r}; known are {', '.join(sorted(classes))}")
    rows = [row for row in rows if row[label_column] in classes]
    if not rows:
        raise DataError(f"{folder} has no labelled image (PNG, JPEG or DICOM: manifest.csv, or a folder per class)")
    for word in classes:
        if not any(row[label_column] == word for row in rows):
            raise DataError(f"{folder} has no image with the label {word!r}; all of {', '.join(classes)} are needed")
    items = _items(folder, rows, classes, label_column, asked)
    for column in {*asked.tags} - {*TAG_COLUMNS}:
        if not any(column in item.tags for item in items):
            raise DataError(f"{listed} tells of no image's {column!r}; it has {', '.join(rows[0])}")
    return items


def split(items: Sequence[Item], *, validation: float, calibration: float, seed: int) -> dict[str, list[Item]]:
    """Deal whole groups to the parts, class by class, so that each part has both.

    `items` : as `read` returns them
    `validation`, `calibration` : share of each class's groups, in (0, 1)
    `seed` : another seed, another deal; the same one, the same deal on any machine
    Raises DataError: too few patients for both held-out parts.
    """
    label_of_group = {item.group: item.positive for item in items}
    part_of_group: dict[str, str] = {}
    for positive in (False, True):
        groups = [group for group, is_positive in label_of_group.items() if is_positive is positive]
        groups.sort(key=lambda group: sha256(f"{seed}:{group}".encode()).digest())
        if len(groups) < len(PARTS):
            raise DataError(
                f"{len(groups)} patients with the {'positive' if positive else 'negative'} label are too few: "
                "training, validation and calibration need one each"
            )
        ends = [max(1, round(validation * len(groups)))]
        ends.append(ends[0] + max(1, round(calibration * len(groups))))
        for place, group in enumerate(groups):
            part_of_group[group] = "validation" if place < ends[0] else "calibration" if place < ends[1] else "training"
    return {part: [item for item in items if part_of_group[item.group] == part] for part in PARTS}


def fingerprint(items: Sequence[Item]) -> str:
    """Name a set of images by their content, whatever their order and file names."""
    return sha256("".join(sorted(item.digest for item in items)).encode()).hexdigest()


def load(item: Item) -> NDArray[np.float32]:
    """Decode one image as the network's preprocessing wants it, in its own shape.

    Returns
    -------
    float32, shape (rows, cols), range [0, 1], larger means brighter

    Raises DataError: the file is not an image.
    """
    picture = _decoded(item)
    return picture if item.aspect is None else in_shape(picture, item.aspect)


def _decoded(item: Item) -> NDArray[np.float32]:
    if item.path.suffix.lower() not in SUFFIXES:
        return load_dicom(item.path)
    try:
        with Image.open(item.path) as image:
            if image.mode.startswith("I"):  # 16 bits; convert("L") would cut all above 255
                return np.asarray(image, dtype=np.float32) / 65535.0
            return np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{item.path} is not a readable image") from error


def load_all(items: Sequence[Item], size_px: int, on_image: Callable[[], None] = lambda: None) -> NDArray[np.uint8]:
    """Decode all images once, so that loading costs nothing afterwards.

    Returns
    -------
    uint8, shape (images, size_px, size_px); 5,000 images of 224 pixels take 250 MB

    Raises DataError: a file is not an image.
    """
    images = np.empty((len(items), size_px, size_px), dtype=np.uint8)

    def fill(place: int) -> None:
        small = Image.fromarray(_decoded(items[place])).resize((size_px, size_px), Image.Resampling.BILINEAR)
        images[place] = np.rint(np.asarray(small) * 255.0)
        on_image()

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(fill, range(len(items))))
    return images


def aspects(items: Sequence[Item], known: Mapping[str, float] | None = None, folder: Path = Path()) -> Doubles:
    """Width over height of each film: float64, shape (images,), not a number where it is lost.

    `known` : file, as named from `folder`, -> width over height; None: every file has its film's shape
    Raises DataError: a file is not an image.
    """
    if known is None:
        return np.array([_aspect(item) for item in items])
    return np.array([known.get(item.path.relative_to(folder).as_posix(), np.nan) for item in items])


def _aspect(item: Item) -> float:
    if item.aspect is not None:
        return item.aspect
    if item.path.suffix.lower() not in SUFFIXES:
        rows, cols = load_dicom(item.path).shape
        return float(cols / rows)
    try:
        with Image.open(item.path) as image:
            width, height = image.size
            return float(width / height)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{item.path} is not a readable image") from error


def drawn_aspects(count: int, rng: np.random.Generator) -> Doubles:
    """Draw width over height of films whose shape is lost, whatever their class."""
    return np.asarray(np.exp(rng.normal(LOST_MEAN, LOST_SPREAD, count)))


def shapes_listed(manifest: Path, file: str, columns: str, rows: str) -> dict[str, float]:
    """Read width over height of squashed files. Raises DataError: the manifest or a number in it cannot be read."""
    listed = {}
    for row in _csv_rows(manifest, (file, columns, rows)):
        try:
            listed[row[file]] = float(row[columns]) / float(row[rows])
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"{manifest} does not tell {columns} and {rows} of {row[file]}") from error
    return listed


def in_shape(picture: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """Give a squashed square film its shape back; left as it is where that is lost.

    Parameters
    ----------
    picture : float32, shape (size_px, size_px), range [0, 1]
    aspect : width over height
    """
    if not np.isfinite(aspect):
        return picture
    size = len(picture)
    cols, rows = (round(size * max(aspect, 1.0)), round(size * max(1.0 / aspect, 1.0)))
    return np.asarray(Image.fromarray(picture).resize((cols, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def _csv_rows(manifest: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest} is not a readable CSV file") from error
    if not rows:
        raise DataError(f"{manifest} lists no image")
    for column in columns:
        if column not in rows[0]:
            raise DataError(f"{manifest} has no column {column!r}; it has {', '.join(rows[0])}")
    return rows


def _manifest_rows(manifest: Path, label_column: str) -> list[dict[str, str]]:
    rows = _csv_rows(manifest, ("file", label_column))
    for number, row in enumerate(rows, start=2):
        if not row["file"] or row[label_column] is None:
            raise DataError(f"{manifest} has a row without a label or a file: row {number}")
    return rows


def _tree_rows(folder: Path, label_column: str) -> list[dict[str, str]]:
    files = sorted(path for path in folder.glob("*/**/*") if is_image(path))
    names = [path.relative_to(folder) for path in files]
    return [{"file": str(name), label_column: name.parts[0]} for name in names]


def is_image(path: Path) -> bool:
    """Whether a file in a folder is one that `load` may read: PNG, JPEG or DICOM, and not hidden."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in SUFFIXES or is_dicom(path)


def _items(
    folder: Path, rows: Sequence[Mapping[str, str]], classes: Mapping[str, bool], label_column: str, asked: Asked
) -> list[Item]:
    for row in rows:
        if not (folder / row["file"]).is_file():
            raise DataError(f"{folder / row['file']} is listed but does not exist")
    known = [_looked_at(folder / row["file"], row, asked.tags) for row in rows]
    return [
        Item(
            path=folder / row["file"],
            positive=classes[row[label_column]],
            word=row[label_column],
            kind=row.get("sublabel") or row[label_column],
            group=group,
            digest=digest,
            tags=tags,
            boxes=_boxes(row, asked.boxes) if asked.boxes else (),
        )
        for row, (digest, _, tags), group in zip(rows, known, _groups(rows, known), strict=True)
    ]


def _boxes(row: Mapping[str, str], column: str) -> tuple[Box, ...]:
    side = re.search(r"_(\d+)$", column)
    if side is None or not int(side[1]):
        raise DataError(f"the column {column!r} does not end in the side of its grid, as boxes_1024 does")
    if column not in row:
        raise DataError(f"the manifest has no column {column!r}; it has {', '.join(row)}")
    try:
        told = [tuple(float(number) / int(side[1]) for number in box) for box in json.loads(row[column] or "[]")]
    except (ValueError, TypeError) as error:
        raise DataError(f"{row['file']}: {column} is no list of boxes [x, y, width, height]") from error
    boxes = [(one[0], one[1], one[2], one[3]) for one in told if len(one) == len(("x", "y", "width", "height"))]
    if len(boxes) < len(told):
        raise DataError(f"{row['file']}: {column} holds a box that is not [x, y, width, height]")
    return tuple(boxes)


def _looked_at(path: Path, row: Mapping[str, str], tags: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """Digest of a file, its patient ("": not known) and its tags; the manifest comes before a DICOM header.

    The patients of a manifest are numbered anew in each sub-class, so a child is (patient, sublabel).
    """
    content = path.read_bytes()
    patient, told = "", dict[str, str]()
    if path.suffix.lower() not in SUFFIXES:
        source = _source(path, content)
        named = source.text("PatientID") or source.ref.study_instance_uid
        patient = f"dicom {sha256(named.encode('utf-8', 'surrogateescape')).hexdigest()}"
        told = _header_tags(source)
    if row.get("patient"):
        patient = f"patient {row['patient']} {row.get('sublabel', '')}"
    return sha256(content).hexdigest(), patient, told | {name: row[name] for name in tags if row.get(name)}


def _groups(rows: Sequence[Mapping[str, str]], known: Sequence[tuple[str, str, dict[str, str]]]) -> list[str]:
    """Join rows of one child and rows of one picture; copies of one picture may carry two children's names."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    firsts = []
    for row, (digest, patient, _) in zip(rows, known, strict=True):
        child = patient or f"file {digest}"
        names = [child, f"file {digest}"]
        if row.get("exact_duplicate_group"):
            names.append(f"copies {row['exact_duplicate_group']}")
        for name in names[1:]:
            parent[root(name)] = root(child)
        firsts.append(child)
    return [root(name) for name in firsts]


DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or, where it has none of ours, by its first bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] == _MAGIC
    except OSError:
        return False


def header_tags(path: Path) -> dict[str, str]:
    """Age (years), sex and view of a file as far as its header knows them. Raises DataError: it cannot be read."""
    return _header_tags(_source(path, path.read_bytes()))


def _header_tags(source: header.Source) -> dict[str, str]:
    age = "" if source.age_years is None else f"{source.age_years:.1f}"
    view = "" if source.view is View.UNKNOWN else str(source.view)
    told = {"age": age, "sex": source.text("PatientSex"), "view": view}
    return {name: value for name, value in told.items() if value}


def load_dicom(path: Path) -> NDArray[np.float32]:
    """Decode a file's one gray frame.

    Returns
    -------
    float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense), as the node sees it

    Raises DataError: the file cannot be read or decoded.
    """
    try:
        source = _source(path, path.read_bytes())
        return pixels.decode(source, Admission()).pixels
    except (OSError, InstanceError, ResourceError) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error


def _source(path: Path, content: bytes) -> header.Source:
    source = header.read(content)
    if isinstance(source, Rejected):
        raise DataError(f"{path} is not a readable image: {source.sentence}")
    return source
