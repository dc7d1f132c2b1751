"""DICOM files as training images: read and decoded by the very functions that the node uses.

Knows no label and no rule of admission: what is in the data folder was chosen by its owner. PS3.10 7.1 (preamble).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.domain import Rejected, View
from cxr_node.errors import DataError, InstanceError, ResourceError

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


def header_patient(path: Path, content: bytes) -> str:
    """Name a file's patient by a one-way digest of Patient ID, or of the study where there is none.

    Raises
    ------
    DataError : the file cannot be read
    """
    source = _source(path, content)
    named = source.text("PatientID") or source.ref.study_instance_uid
    return sha256(named.encode("utf-8", "surrogateescape")).hexdigest()


def header_tags(path: Path) -> dict[str, str]:
    """Tell age (years), sex and view of a file as far as its header knows them.

    Raises
    ------
    DataError : the file cannot be read
    """
    source = _source(path, path.read_bytes())
    age = "" if source.age_years is None else f"{source.age_years:.1f}"
    view = "" if source.view is View.UNKNOWN else str(source.view)
    told = {"age": age, "sex": source.text("PatientSex"), "view": view}
    return {name: value for name, value in told.items() if value}


def load_dicom(path: Path) -> NDArray[np.float32]:
    """Decode a file's one gray frame.

    Returns
    -------
    float32, shape (rows, cols), range [0, 1], larger means more attenuating (MONOCHROME2 sense), as the node sees it

    Raises
    ------
    DataError : the file cannot be read or decoded
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
