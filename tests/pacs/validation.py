"""Writes docs/validation.md: what public validators say of forty result sets, and why some of it stays.

    python -m tests.pacs.validation docs/validation.md

Wants dicom3tools, dcmtk, libpixelmed-java, pixelmed-apps and default-jdk-headless; some four minutes.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, Template

from cxr_node.dicom.verify import check
from tests.pacs import validators
from tests.pacs.result_sets import RESULT_SETS, Made, write
from tests.pacs.validators import KNOWN, Complaint, Known

Validate = Callable[[Sequence[Path]], dict[Path, list[Complaint]]]
VALIDATORS: dict[str, tuple[str, Validate, Callable[[Made], bool]]] = {
    "dciodvfy": ("Debian dicom3tools", functools.partial(validators.over, validators.dciodvfy), lambda made: True),
    "dsrdump": ("Debian dcmtk", functools.partial(validators.over, validators.dsrdump), lambda made: made.is_report),
    "DicomSRValidator": ("Debian libpixelmed-java", validators.pixelmed_together, lambda made: made.is_report),
}
PAGE = """\
<!-- Written by `python -m tests.pacs.validation docs/validation.md`. Do not edit. -->
# Validation: what public validators report

{{ sets }} result sets: each verdict and doubt (PNEUMONIA, NORMAL, UNCERTAIN for three causes) from DX, CR and Secondary
Capture sources, under Latin-1, UTF-8, Greek, Cyrillic, Arabic, Japanese multi-byte and undeclared 8-bit names; every
kind of result, and every SOP Class of the measurements. `pytest tests/pacs/test_result_sets.py` repeats it, with
PixelMed on a part of them.

| validator | from | objects | errors | errors that the source has too | warnings |
|---|---|---|---|---|---|
{% for row in rows %}
| {{ row | join(" | ") }} |
{% endfor %}

## By kind of result

| result | SOP class | objects | validated by | errors beyond the source's |
|---|---|---|---|---|
{% for row in kinds %}
| {{ row | join(" | ") }} |
{% endfor %}

## Remaining complaints, and the reason for each

| validator | complaint | objects | reason |
|---|---|---|---|
{% for row in stays %}
| {{ row | join(" | ") }} |
{% endfor %}

{{ looked_at }}"""


def page(made: list[Made]) -> str:
    """Validate, and put it into words; raises where a complaint has no reason."""
    sources = sorted({one.source for one in made})
    of_sources = {file: _errors(found) for file, found in validators.over(validators.dciodvfy, sources).items()}
    rows: list[tuple[object, ...]] = []
    stays: Counter[Known] = Counter()
    by_kind: dict[tuple[str, str], dict[str, int]] = {}
    for name, (package, validate, fits) in VALIDATORS.items():
        fitting = [one for one in made if fits(one)]
        found = validate([one.file for one in fitting])
        own, shared = 0, 0
        for one in fitting:
            complaints = found[one.file]
            stays.update({_reason(one.file, complaint) for complaint in complaints})
            wrong = _errors(complaints)
            shared += len(wrong & of_sources[one.source])
            own += len(wrong - of_sources[one.source])
            seen = by_kind.setdefault((one.kind.value, one.sop_class_uid), {})
            seen[name] = seen.get(name, 0) + len(wrong - of_sources[one.source])
        warnings = sum(not complaint.is_error for complaints in found.values() for complaint in complaints)
        rows.append((name, _version(package), len(fitting), own, shared, warnings))
    rows.append(("cxr-node verify", "this project", len(made), len(_own_flaws(made)), 0, 0))
    objects = Counter((one.kind.value, one.sop_class_uid) for one in made)
    return _template().render(
        looked_at=(Path(__file__).parent / "looked_at.md").read_text("utf-8"),
        sets=len(RESULT_SETS),
        rows=rows,
        kinds=[(*key, objects[key], ", ".join(seen), sum(seen.values())) for key, seen in by_kind.items()],
        stays=[(known.validator, known.shown, stays[known], known.reason) for known in KNOWN if stays[known]],
    )


def _reason(file: Path, complaint: Complaint) -> Known:
    for known in KNOWN:
        if known.covers(complaint):
            return known
    raise SystemExit(f"{file.name}: {complaint.words}: no reason for it in tests/pacs/validators.py")


def _own_flaws(made: list[Made]) -> list[str]:
    """What `cxr-node verify` says of each set with its source."""
    flaws: list[str] = []
    for of in RESULT_SETS:
        files = {file for one in made if one.of is of for file in (one.source, one.file)}
        checked = check.check_files((file.name, file.read_bytes()) for file in sorted(files))
        flaws += map(str, checked.flaws)
    return flaws


def _version(package: str) -> str:
    """Name a Debian package with its version."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package.removeprefix("Debian ")],
        capture_output=True,
        text=True,
        check=True,
    )
    return f"{package} {shown.stdout}"


def _errors(complaints: list[Complaint]) -> set[str]:
    return {complaint.words for complaint in complaints if complaint.is_error}


def _template() -> Template:
    return Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).from_string(PAGE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        Path(sys.argv[1]).write_text(page(write(Path(folder))), "utf-8")
