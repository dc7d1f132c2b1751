"""Whether a stored object can be parsed, in the opinion of two that did not store it: pydicom on its own, and DCMTK.

Parsable means that its encoding can be walked to the end: every element's tag, VR and length, every sequence and
item, every fragment. A value that breaks its VR's rules (letters in a number, an odd length) can be read, and is none
of this judge's business: the worker rejects such an image with a reason, or lives with it.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

from pydicom import Dataset, config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_fragments
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag

_PIXEL_DATA = 0x7FE00010


def pydicom_says(file: Path) -> str:
    """What pydicom could not read; "" where it could. All sequences are opened, no other value is converted."""
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            dataset = dcmread(file)
            _walk(dataset)
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated and _PIXEL_DATA in dataset:
                list(generate_fragments(dataset.get_item(_PIXEL_DATA).value or b""))
    except Exception as error:  # it must say something, whatever it meets
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def _walk(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        try:
            raw = dataset.get_item(tag)
            element = dataset[tag] if not isinstance(raw, RawDataElement) or _is_sequence(tag, raw) else None
        except BytesLengthException:  # of Pixel Representation, which it asks for in passing: a value, see above
            continue
        for item in element.value if element is not None and element.VR == "SQ" else ():
            _walk(item)


def _is_sequence(tag: BaseTag, raw: RawDataElement) -> bool:
    if raw.VR is not None:
        return raw.VR == "SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def dcmtk_says(file: Path) -> str:
    """What dcmdump could not read; "" where it could."""
    program = shutil.which("dcmdump")
    if program is None:
        return ""
    command = [program, "--read-file-only", "--quiet", str(file)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return "" if done.returncode == 0 else f"exit {done.returncode}"
