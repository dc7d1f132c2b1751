"""Twenty studies before public validators, our own check and highdicom: no errors in whatever a study has."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from cxr_node.dicom.verify import check, second_reader
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests.pacs import validators
from tests.pacs.result_sets import CHARACTER_SETS, ResultFile
from tests.pacs.study_sets import ANSWERS, OTHERS, STUDY_SETS, write
from tests.pacs.test_result_sets import errors, unexplained

pytestmark = pytest.mark.pacs

WITH_PIXELMED = ("05", "08", "11", "17", "18")
"""Numbers of sets: a late lateral, four images, all doubts, one prior, no region."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[ResultFile]:
    return write(tmp_path_factory.mktemp("studies"))


def of(made: list[ResultFile], chosen: Callable[[ResultFile], bool]) -> list[Path]:
    return [one.file for one in made if chosen(one)]


def test_there_are_twenty_studies_of_everything_that_a_study_may_have(made: list[ResultFile]) -> None:
    assert len(STUDY_SETS) == len({one.sources for one in made}) == 20
    assert {what for one in STUDY_SETS for what in one.images} == {*ANSWERS, *OTHERS}
    assert {len(one.images) for one in STUDY_SETS} == {1, 2, 3, 4}
    assert {one.character_set for one in STUDY_SETS} == set(CHARACTER_SETS)
    assert set(DICOM_KINDS) == {one.kind for one in made}
    assert sum(one.kind is ResultKind.REPORT for one in made) == 20


def test_dciodvfy_finds_no_error_that_the_sources_do_not_have(made: list[ResultFile]) -> None:
    found = validators.over(validators.dciodvfy, of(made, lambda one: True))
    assert unexplained(found) == []
    of_sources = errors(validators.over(validators.dciodvfy, sorted({file for one in made for file in one.sources})))
    of_results = errors(found)
    for one in made:
        assert of_results[one.file] <= set().union(*(of_sources[file] for file in one.sources)), one.file.name


def test_dsrdump_reads_every_tree(made: list[ResultFile]) -> None:
    found = validators.over(validators.dsrdump, of(made, lambda one: one.is_report))
    assert unexplained(found) == []
    assert not any(errors(found).values())


def test_pixelmed_finds_every_template_kept(made: list[ResultFile]) -> None:
    """A part of the studies: some 5 s a file without a JDK."""
    first = {"report": ".11", "measurements": ".34", "key-object": ".59"}
    chosen = of(
        made,
        lambda one: (
            one.is_report
            and one.file.name.startswith(WITH_PIXELMED)
            and one.sop_class_uid.endswith(first[one.kind.value])
        ),
    )
    assert len(chosen) >= 12
    assert unexplained(validators.pixelmed_by_any_way(chosen)) == []


def test_our_own_check_finds_nothing_in_any_set(made: list[ResultFile]) -> None:
    """Sources and results of a study together; of several SOP Classes the one that is sent first."""
    for sources, results in groupby(made, lambda one: one.sources):
        files = [*sources, *(one.file for one in results if not one.sop_class_uid.endswith((".33", ".22")))]
        checked = check.check_files((file.name, file.read_bytes()) for file in files)
        assert [str(flaw) for flaw in checked.flaws] == []
        assert checked.sources + len(checked.ignored) == len(sources)


def test_highdicom_reads_everything(made: list[ResultFile]) -> None:
    assert [str(flaw) for one in made for flaw in second_reader.flaws(one.file.name, one.file.read_bytes())] == []
