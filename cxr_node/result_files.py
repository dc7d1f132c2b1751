"""The folder of `cxr-node classify --out`: one file for each result object, and never one patient's over another's.

Knows no DICOM. A result is <name of its image>.<kind>.dcm; where that name is taken, or would be by another image of
the same run, a digest of the SOP Instance UID stands behind the image's name, and of the content where even that is
taken. The same image, judged again, gives the same bytes, and these may lie there already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from cxr_node.domain import Artifact, ResultKind
from cxr_node.errors import DataError

_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima", ".img", ".png", ".jpg", ".jpeg"})
"""What is no part of an image's name; storescp names files by their UIDs, whose last component is none either."""
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

        Raises
        ------
        DataError : the folder cannot be written to, or every name is taken.
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
        paths = {self._folder / f"{name}.{artifact.kind}.dcm": artifact.content for artifact in artifacts}
        names = (f"{name}.{kind}.dcm".casefold() for kind in ResultKind)
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


def _digest(*parts: bytes) -> str:
    return sha256(b"".join(parts)).hexdigest()[:_DIGEST_CHARACTERS]
