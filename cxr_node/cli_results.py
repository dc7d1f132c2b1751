"""The command that checks results; registered by `cli`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cxr_node.command import AsJson, command, err, out, say_json
from cxr_node.errors import DataError


@command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="Result objects, with their sources or without; files, folders.")],
    as_json: AsJson = False,
) -> None:
    """Check result objects by our own rules: one line per flaw; exit 0 where there is none."""
    from cxr_node.dicom import verify as room

    checked = room.check_files(_contents(paths))
    for flaw in checked.flaws:
        if as_json:
            say_json({"file": flaw.document, "code": flaw.rule.value, "sentence": flaw.sentence, "where": flaw.where})
        else:
            out.print(str(flaw), markup=False)
    for name in checked.ignored:
        err.print(f"{name}: neither a result of ours nor a radiograph; not checked", markup=False)
    if not checked.results and not checked.flaws:
        raise DataError("there is no result of ours among these files")
    if not as_json:
        out.print(f"{checked.results} results, {checked.sources} sources, {len(checked.flaws)} flaws")
    raise typer.Exit(1 if checked.flaws else 0)


def _contents(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    from cxr_node import classify

    for file in classify.files(paths):
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
