"""Images from which a classifier would learn most, without their patients: where readers disagree, or none answered.

Writes a folder that `cxr-node train` reads (manifest.csv), a list of all cases by their ledger numbers (cases.csv),
and what must be looked at before it leaves the house (READ_FIRST.txt).
"""

from __future__ import annotations

import csv
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cxr_node.assurance.agreement import By, Case, deciding, discordant
from cxr_node.assurance.agreement import cases as read_cases
from cxr_node.assurance.report_rules import Said
from cxr_node.dicom import deidentify
from cxr_node.dicom.deidentify import Anonymous
from cxr_node.domain import Verdict
from cxr_node.errors import CxrNodeError, DataError
from cxr_node.node.ledger import readings
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.readings import Image
from cxr_node.node.spool.spool import Area, Spool

READ_FIRST = """Images of patients whose identity was taken out of the header
(DICOM PS3.15, Basic Application Level Confidentiality Profile).

THE PIXELS WERE NOT CLEANED. Look at every image before it leaves the house: names, numbers and dates that are burned
into it are still there, and so are labels in the picture. Images whose header says that there are such (Burned In
Annotation YES) were left out. A radiograph may be recognised by whoever has the same radiograph.

manifest.csv  images with a reader's word, for cxr-node train --data THIS_FOLDER
cases.csv     all cases by their number in the ledger of the node. It leads back to the patients: it stays in the house.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A recipe's words in the column label."""

    positive: str = "PNEUMONIA"
    negative: str = "NORMAL"


@dataclass(slots=True, kw_only=True)
class Exported:
    """What was written."""

    cases: int = 0
    images: int = 0
    labelled: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Images, by why they are not there."""


GONE, BURNED_IN, UNREADABLE = "no longer in the spool", "burned-in annotation", "cannot be read"


def chosen(ledger: Ledger, since: datetime, *, apart: bool, unsure: bool, by: By) -> list[tuple[str, Case]]:
    """Cases, each with why it was chosen: discordant ones, and UNCERTAIN ones whether somebody read them or not."""
    known = read_cases(ledger, since, by=by)
    found = [("discordant", case) for case in discordant(known)] if apart else []
    if unsure:
        said = {case.numbers: case.said for case in known}
        answered = [(images, deciding(images)) for images in readings.answered(ledger, since)]
        for images, image in answered:
            if image is not None and image.verdict is Verdict.INDETERMINATE:
                numbers = tuple(each.number for each in images)
                word = said.get(numbers, Said.NOT_STATED)
                found.append(("uncertain", Case(image=image, images=images, said=word, verdict=image.verdict)))
    return sorted(found, key=lambda one: one[1].numbers)


def write(found: Sequence[tuple[str, Case]], spool: Spool, folder: Path, labels: Labels) -> Exported:
    """Write cases into a new folder. Raises DataError: it is there and not empty, or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty")
        return _Folder(folder, spool, labels).fill(found)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from error


class _Folder:
    """One export, under a key of its own that is forgotten with it."""

    def __init__(self, folder: Path, spool: Spool, labels: Labels) -> None:
        self._folder, self._spool = folder, spool
        self._words = {Said.PRESENT: labels.positive, Said.ABSENT: labels.negative}
        self._key = secrets.token_bytes(32)
        self._done = Exported()

    def fill(self, found: Sequence[tuple[str, Case]]) -> Exported:
        self._done.cases = len(found)
        manifest: list[dict[str, str]] = []
        listed: list[dict[str, str]] = []
        for why, case in found:
            for image in case.images:
                if image.verdict is not Verdict.REJECTED:
                    row = self._image(image, case)
                    listed.append(self._listed(why, case, image, row))
                    manifest += [row] if row.get("label") else []
        self._done.labelled = len(manifest)
        _write(self._folder / "cases.csv", listed)
        _write(self._folder / "manifest.csv", manifest)
        (self._folder / "READ_FIRST.txt").write_text(READ_FIRST, "utf-8")
        return self._done

    def _image(self, image: Image, case: Case) -> dict[str, str]:
        """The row of the manifest; only `why_not` where the image is not there."""
        made = self._anonymous(image)
        if isinstance(made, str):
            self._done.left_out[made] = self._done.left_out.get(made, 0) + 1
            return {"why_not": made}
        self._done.images += 1
        name = f"{self._done.images:05d}.dcm"
        (self._folder / name).write_bytes(made.content)
        view = "" if made.view == "unknown" else made.view
        return {"file": name, "label": self._words.get(case.said, ""), "patient": made.patient, "view": view}

    def _anonymous(self, image: Image) -> Anonymous | str:
        if not image.is_kept:
            return GONE
        try:
            made = deidentify.anonymous(self._spool.load(Area.OBJECTS, image.content_sha256), self._key)
        except CxrNodeError:
            return UNREADABLE
        return BURNED_IN if made.is_burned_in else made

    @staticmethod
    def _listed(why: str, case: Case, image: Image, row: Mapping[str, str]) -> dict[str, str]:
        return {
            "image": str(image.number),
            "why": why,
            "verdict": image.verdict.name,
            "abstain_reason": image.abstain_reason or "",
            "probability": "" if image.probability is None else f"{image.probability:.4f}",
            "said": case.said,
            "sender": image.sender.strip(),
            "age_band": image.age_band or "",
            "file": row.get("file", ""),
            "why_not": row.get("why_not", ""),
        }


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    rows = list(rows)
    heads = list(rows[0]) if rows else ["file", "label", "patient", "view"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, heads, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
