"""Judge files without a network: DICOM files, or pictures wrapped as DX.

The same pipeline as the node's; what it would have sent can be written to a folder.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import psutil

from cxr_node import pipeline
from cxr_node.config.schema import Config
from cxr_node.dicom import from_picture
from cxr_node.dicom.words import rounding
from cxr_node.domain import PNEUMONIA, Finding, Origin, Reason, Scale, Target, Verdict
from cxr_node.errors import DataError, InstanceError
from cxr_node.outcome import Artifact, Rejected
from cxr_node.result_kinds import SHAPES, ReportPer, ResultKind

_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima", ".img", ".png", ".jpg", ".jpeg"})
"""What is no part of an image's name; storescp names files by their UIDs, whose last component is none either."""
_MAX_LANES = 4  # each takes some 150 MB of a 5 megapixel image
_FILES_A_PROCESS, _PROCESS_BYTES = 32, 1 << 30
"""From so many files on a process of their own pays; and what it may need: 0.5 GB, and an image of 5 megapixels."""
Item = TypeVar("Item")
Done = TypeVar("Done")
_DIGEST_CHARACTERS = 8
_MAX_NAME_BYTES = 180
"""Of an image's name, so that the rest fits into the 255 of a file system."""


class ResultFiles:
    """Names and writes the results of one run."""

    def __init__(self, folder: Path, images: Sequence[Path]) -> None:
        self._folder = folder
        self._wanted = Counter(_name(image).casefold() for image in images)
        self._there: dict[str, list[Path]] = {}
        """What lies in the folder, by its name without capitals: some file systems do not tell them apart."""

    def write(self, image: Path, sop_instance_uid: str, artifacts: Sequence[Artifact]) -> list[Path]:
        """Write what was made of one image; the files, in the order of the objects.

        Raises DataError: the folder cannot be written to, or every name is taken.
        """
        try:
            self._look()
            for name in self._names(image, sop_instance_uid, artifacts):
                if (written := self._written(name, artifacts)) is not None:
                    return written
        except OSError as error:
            raise DataError(f"{self._folder}: results cannot be written there ({error.strerror})") from error
        raise DataError(f"{self._folder}: holds other results under every name for those of {image.name}; name another")

    def _names(self, image: Path, sop_instance_uid: str, artifacts: Iterable[Artifact]) -> Iterator[str]:
        name = _name(image)
        if self._wanted[name.casefold()] <= 1:
            yield name
        yield f"{name}-{_digest(sop_instance_uid.encode())}"
        yield f"{name}-{_digest(*(artifact.content for artifact in artifacts))}"

    def _written(self, name: str, artifacts: Sequence[Artifact]) -> list[Path] | None:
        """Write all objects under one name; None where anything of that name is there already that is not ours."""
        paths = {self._folder / _file_name(name, artifact.kind): artifact.content for artifact in artifacts}
        names = (_file_name(name, kind).casefold() for kind in ResultKind)
        there = [path for taken in names for path in self._there.get(taken, ())]
        if any(path not in paths or path.read_bytes() != paths[path] for path in there):
            return None
        for path, content in paths.items():
            if path not in there:
                _create(path, content)
                self._there.setdefault(path.name.casefold(), []).append(path)
        return list(paths)

    def _look(self) -> None:
        if not self._there:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.iterdir():
                self._there.setdefault(path.name.casefold(), []).append(path)


def _create(path: Path, content: bytes) -> None:
    """Write a file that is not there; nothing stays of one that could not be written to its end."""
    with path.open("xb") as file:  # whoever made it in the meantime keeps it
        try:
            file.write(content)
        except BaseException:
            path.unlink()
            raise


def _name(image: Path) -> str:
    name = image.stem if image.suffix.lower() in _SUFFIXES else image.name
    return name.encode("utf-8", "surrogateescape")[:_MAX_NAME_BYTES].decode("utf-8", "ignore") or "image"


def _file_name(name: str, kind: ResultKind) -> str:
    suffix = SHAPES[kind].suffix
    return f"{name}{suffix}" if suffix == f".{kind}" else f"{name}.{kind}{suffix}"


def _digest(*parts: bytes) -> str:
    return sha256(b"".join(parts)).hexdigest()[:_DIGEST_CHARACTERS]


_NOT_IMAGES = frozenset({".csv", ".hl7", ".html", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})
"""Passed over when a folder is walked; anything else there is meant to be an image and gets an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the node says of one file."""

    path: Path
    outcome: Finding | Rejected
    artifacts: tuple[Artifact, ...] = ()
    sop_instance_uid: str = ""
    """Of the image; "" where it is REJECTED."""

    @property
    def verdict(self) -> Verdict:
        """What the node says of it."""
        return Verdict.REJECTED if isinstance(self.outcome, Rejected) else self.outcome.decision.verdict

    @property
    def target(self) -> Target | None:
        """What the verdict is about; None where the file was not analysed."""
        return None if isinstance(self.outcome, Rejected) else self.outcome.target

    @property
    def word(self) -> str:
        """The verdict for programs: PNEUMONIA, NORMAL, UNCERTAIN or REJECTED."""
        return (self.target or PNEUMONIA).word(self.verdict)

    @property
    def reason(self) -> str | None:
        """The coded reason of a REJECTED, the abstain reason of an UNCERTAIN, else None."""
        if isinstance(self.outcome, Rejected):
            return self.outcome.reason.value
        reason = self.outcome.decision.abstain_reason
        return reason.value if reason else None

    @property
    def sentence(self) -> str | None:
        """Why it was not analysed, for people."""
        return self.outcome.sentence if isinstance(self.outcome, Rejected) else None

    @property
    def stated(self) -> str | None:
        """Certainty or score, for people; None where none may be stated."""
        if isinstance(self.outcome, Rejected):
            return None
        scale = self.outcome.identity.operating_point.scale
        number = rounding.stated_text(self.outcome)
        return f"score {number}" if number is not None and scale is Scale.SCORE else number

    def as_json(self, profile: str) -> dict[str, str | float | dict[str, float] | None]:
        """One line of `cxr-node classify --json`; a contract that other programs build on.

        A profile of several classes adds `classes`. A profile of several findings adds `judged`, `scale` and
        `findings`; where the scale is `score`, `probability` is null.
        """
        finding = self.outcome if isinstance(self.outcome, Finding) else None
        distance = finding.prediction.distance if finding else None
        return {
            "path": str(self.path),
            "verdict": self.word,
            "probability": _probability(finding) if finding else None,
            "reason": self.reason,
            "sentence": self.sentence,
            "spread": round(finding.prediction.spread, 6) if finding else None,
            "distance": round(distance, 6) if distance is not None else None,
            "profile": finding.identity.profile if finding else profile,
        } | (_more(finding) if finding else {})


def _probability(finding: Finding) -> float | None:
    value = finding.calibrated_probability
    return None if value is None else rounding.exact_fraction(value, finding.identity.operating_point)


def _more(finding: Finding) -> dict[str, str | dict[str, float]]:
    classes = {label: round(share, 6) for label, share in finding.prediction.classes.items()}
    several = len(finding.prediction.probability) > 1
    return ({"classes": classes} if classes else {}) | (_scores(finding) if several else {})


def _scores(finding: Finding) -> dict[str, str | dict[str, float]]:
    """Every finding's number, the highest first, what the numbers are, and which of them was judged."""
    ranked = sorted(finding.prediction.probability.items(), key=lambda item: -item[1])
    point = finding.identity.operating_point
    numbers = {label: rounding.exact_fraction(number, point) for label, number in ranked}
    return {"judged": point.label, "scale": point.scale.value, "findings": numbers}


def files(paths: Sequence[Path]) -> list[Path]:
    """Files to judge, folders walked in the order of their names.

    Raises DataError: a path does not exist, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [file for file in sorted(path.rglob("*")) if _is_candidate(file, path)]
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no image found")
    return found


def part10(path: Path, **attributes: str) -> bytes:
    """A file as the network would have brought it; `attributes` are told of a picture, which has none of its own.

    Raises InstanceError: it cannot be read, or is a picture that cannot be wrapped.
    """
    if path.suffix.lower() in from_picture.PICTURE_SUFFIXES:
        return from_picture.wrap(path, **attributes)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InstanceError(f"the file cannot be read ({error.strerror})") from error


def dicom_files(paths: Sequence[Path], scratch: Path) -> list[Path]:
    """The files as Part 10 files: pictures wrapped into `scratch`, DICOM files where they are.

    Raises DataError: a picture cannot be wrapped.
    """
    found = []
    for number, path in enumerate(paths):
        if path.suffix.lower() in from_picture.PICTURE_SUFFIXES:
            wrapped = scratch / f"{number:06d}.dcm"
            try:
                wrapped.write_bytes(from_picture.wrap(path))
            except InstanceError as error:
                raise DataError(f"{path}: {error}") from error
            path = wrapped
        found.append(path)
    return found


def judge(paths: Sequence[Path], classifier: pipeline.Classifier, config: Config, *, objects: bool) -> Iterator[Answer]:
    """Answer for each file, in order; with its result objects where asked for.

    The results are those of `report_per: image`, whatever the destinations want of a study. Their content time is the
    file's modification time: the same file gives the same bytes.
    """
    return in_order(partial(_judged, classifier=classifier, config=config, objects=objects), paths)


def _judged(path: Path, classifier: pipeline.Classifier, config: Config, *, objects: bool) -> Answer:
    try:
        content = part10(path)
    except InstanceError as error:
        return Answer(path=path, outcome=Rejected(reason=Reason.UNREADABLE_PIXELS, sentence=str(error)))
    kinds = (config.kinds(ReportPer.IMAGE) or config.kinds(ReportPer.STUDY)) if objects else frozenset()
    judged = pipeline.judge(content, classifier, config)
    if isinstance(judged, Rejected) or not kinds:
        return answer(path, judged)
    return answer(path, judged, pipeline.explain(judged, origin(path), config, kinds=kinds))


def in_order(do: Callable[[Item], Done], items: Iterable[Item]) -> Iterator[Done]:
    """Do it with each item, several at a time as in a worker's lanes; the results in the order of the items."""
    lanes = min(len(os.sched_getaffinity(0)), _MAX_LANES)
    with ThreadPoolExecutor(lanes, "lane") as pool:
        yield from _ahead(pool, do, items, lanes)


def _ahead(pool: Executor, do: Callable[[Item], Done], items: Iterable[Item], most: int) -> Iterator[Done]:
    ahead: deque[Future[Done]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(do, item))
            if len(ahead) > most:  # what is done waits here for whoever reads: no more of it than that
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for each in ahead:
            each.cancel()


def processes(count: int) -> int:
    """How many processes so many files are worth: each loads a network for itself, in the time of some 30 files."""
    room = psutil.virtual_memory().available // _PROCESS_BYTES
    return max(1, min(len(os.sched_getaffinity(0)), count // _FILES_A_PROCESS, room))


def judge_apart(
    paths: Sequence[Path], make: Callable[[], pipeline.Classifier], config: Config, *, objects: bool, count: int
) -> Iterator[Answer]:
    """As `judge`, by so many processes: threads of one would wait for Python's own lock half of their time.

    `make` : makes the classifier, in each process; pickled, as `config` is
    """
    begin = partial(_begin_apart, make, config, objects=objects)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), begin) as pool:  # OpenVINO survives no fork
        yield from _ahead(pool, _judged_apart, paths, 2 * count)


_APART: list[Callable[[Path], Answer]] = []
"""Of a process of `judge_apart`: how it judges a file."""


def _begin_apart(make: Callable[[], pipeline.Classifier], config: Config, *, objects: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this one
    logging.disable(logging.CRITICAL)  # as the command that started it
    _APART.append(partial(_judged, classifier=make(), config=config, objects=objects))


def _judged_apart(path: Path) -> Answer:
    return _APART[0](path)


def answer(path: Path, judged: pipeline.Analysis | Rejected, artifacts: tuple[Artifact, ...] = ()) -> Answer:
    """Put what the pipeline found in its answer's form."""
    if isinstance(judged, Rejected):
        return Answer(path=path, outcome=judged)
    uid = judged.source.ref.sop_instance_uid
    return Answer(path=path, outcome=judged.finding, artifacts=artifacts, sop_instance_uid=uid)


def origin(path: Path) -> Origin:
    """Who brings a file, and when: the same file at any time."""
    modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Origin(calling_ae_title="CLASSIFY", peer_host="localhost", received_at=modified_at)


def _is_candidate(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.is_file() and not hidden and file.suffix.lower() not in _NOT_IMAGES
