"""How well the rules read a labelled sample of reports: a site's own, or the hundreds that this project wrote."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cxr_node.assurance.rates import Rate
from cxr_node.assurance.report_rules import Reader, Said
from cxr_node.errors import DataError


@dataclass(frozen=True, slots=True)
class Confusion:
    """Reports by what their label says and by what the rules read."""

    counts: Mapping[tuple[Said, Said], int]
    wrong_rows: tuple[int, ...]
    """Rows of the file, the heading being row 1."""

    @property
    def right(self) -> Rate:
        """Read as labelled."""
        total = sum(self.counts.values())
        return Rate(total - len(self.wrong_rows), total)

    def of_read(self, said: Said) -> Rate:
        """Of the reports that were read so, those that are labelled so."""
        return Rate(self.counts.get((said, said), 0), sum(self.counts.get((label, said), 0) for label in Said))


def check(path: Path, reader: Reader) -> Confusion:
    """Read a CSV file with the columns label and text. Raises DataError: it is none, or has another label."""
    counts: Counter[tuple[Said, Said]] = Counter()
    wrong = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                label = Said((row.get("label") or "").strip().casefold().replace(" ", "-"))
                read = reader.read(row["text"]).said
                counts[label, read] += 1
                wrong += [number] if read is not label else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file") from error
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} needs the columns label (present, absent, not stated) and text") from error
    return Confusion(counts, tuple(wrong))
