"""What came of the last phantoms of `constancy`, in a file of the spool: for metrics, which need none of the libraries.

Beside the figures it says what is expected of a calibration that is not shipped: its first answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cxr_node.errors import ResourceError

_FILE = "constancy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of the phantom of one profile."""

    profile: str
    weights_sha256: str
    at: str
    verdict: str
    probability: float | None
    expected_verdict: str
    expected_probability: float | None
    took_s: float
    """From the C-STORE to the settled row."""
    fault: str
    """"": it is as expected."""
    calibration_sha256: str = ""
    """Of the profile's calibration.yaml, which names the weights; "" in files of before it was kept."""

    @property
    def answerer(self) -> tuple[str, str]:
        """Who answered: name and version, with the mark of a site's own calibration, and the profile's calibration."""
        return self.profile, self.calibration_sha256


def last(spool: Path) -> list[Answer]:
    """Read them; none where no phantom was sent yet.

    Raises
    ------
    ResourceError : the file is there, and cannot be read.
    """
    try:
        return [Answer(**each) for each in json.loads((spool / "run" / _FILE).read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise ResourceError(f"{spool / 'run' / _FILE}: cannot be read") from error


def keep(spool: Path, answers: Iterable[Answer]) -> None:
    """Write them, in place of those before.

    Raises
    ------
    ResourceError : the disk is full, or the spool is not this account's.
    """
    folder = spool / "run"
    fresh = folder / f".{_FILE}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(json.dumps([asdict(each) for each in answers]), "utf-8")
        fresh.replace(folder / _FILE)
    except OSError as error:
        raise ResourceError(f"{folder}: {error.strerror}") from error
