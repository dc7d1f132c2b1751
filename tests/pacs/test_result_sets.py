"""Forty result sets before public validators, readers and an archive: no errors, readable names, readable reports."""

from __future__ import annotations

import html
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_node import pipeline
from cxr_node.dicom.verify import check
from cxr_node.result_kinds import ResultKind
from tests.dicom.contexts import CASES
from tests.pacs import validators
from tests.pacs.peers import Orthanc, need
from tests.pacs.result_sets import CHARACTER_SETS, RESULT_SETS, Made, ResultSet, write
from tests.pacs.validators import KNOWN, Complaint
from tests.processes import run

pytestmark = pytest.mark.pacs

NAMES = {
    "Latin-1": "Müller^Zoë",
    "UTF-8": "Ωμέγα^Ж李",
    "Greek": "Διονυσιος^Άννα",
    "Cyrillic": "Люксембург^Анна",
    "Arabic": "قباني^لنزار",
    "Japanese": "Yamada^Tarou",
    "undeclared": "Müller^Zoë",
}
"""What a person reads; of the Japanese name its first component group."""
IDEOGRAPHIC, PHONETIC = "山田^太郎", "やまだ^たろう"
WITH_PIXELMED = ("pneumonia", "normal", "unlike")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    return write(tmp_path_factory.mktemp("sets"))


def test_there_are_forty_sets_of_every_verdict_kind_sop_class_and_character_set(made: list[Made]) -> None:
    assert len(RESULT_SETS) == 40
    assert {(one.of.case, one.of.character_set) for one in made} == {(c, s) for c in CASES for s in CHARACTER_SETS}
    assert {one.of.source_class for one in made} == {"DX", "CR", "SC"}
    assert {one.kind for one in made} == set(pipeline.BUILDERS)
    choices = {one.sop_class_uid.rsplit(".", 1)[-1] for one in made if one.kind is ResultKind.MEASUREMENTS}
    assert choices == {"34", "33", "22"}


def unexplained(found: dict[Path, list[Complaint]]) -> list[str]:
    return [
        f"{file.name}: {complaint.words}"
        for file, complaints in found.items()
        for complaint in complaints
        if not any(known.covers(complaint) for known in KNOWN)
    ]


def errors(found: dict[Path, list[Complaint]]) -> dict[Path, set[str]]:
    return {file: {one.words for one in complaints if one.is_error} for file, complaints in found.items()}


def test_dciodvfy_finds_no_error_that_the_source_does_not_have(made: list[Made]) -> None:
    found = validators.over(validators.dciodvfy, [one.file for one in made])
    assert unexplained(found) == []
    of_sources = errors(validators.over(validators.dciodvfy, sorted({one.source for one in made})))
    of_results = errors(found)
    for one in made:
        assert of_results[one.file] <= of_sources[one.source], one.file.name
        assert not of_results[one.file] or one.of.character_set == "undeclared", one.file.name


def test_dsrdump_reads_every_tree(made: list[Made]) -> None:
    found = validators.over(validators.dsrdump, [one.file for one in made if one.is_report])
    assert unexplained(found) == []
    assert not any(errors(found).values())


def test_pixelmed_finds_every_template_kept(made: list[Made]) -> None:
    """A part of the sets, some 5 s a file without a JDK; `python -m tests.pacs.validation` shows it all of them."""
    choice = {ResultKind.REPORT: "11", ResultKind.MEASUREMENTS: "34", ResultKind.KEY_OBJECT: "59"}
    first = [
        one.file
        for one in made
        if one.is_report
        and (one.of.source_class, one.of.character_set) == ("DX", "Latin-1")
        and (
            one.of.case == "pneumonia"
            or (one.of.case in WITH_PIXELMED and one.sop_class_uid.endswith(f".{choice[one.kind]}"))
        )
    ]
    found = validators.pixelmed_by_any_way(first)
    assert len(found) >= 8
    assert unexplained(found) == []


@pytest.mark.parametrize("of", RESULT_SETS, ids=str)
def test_our_own_check_finds_nothing(made: list[Made], of: ResultSet) -> None:
    files = [of_set for one in made if one.of is of for of_set in (one.source, one.file)]
    checked = check.check_files((file.name, file.read_bytes()) for file in sorted(set(files)))
    assert (checked.sources, checked.results, checked.ignored) == (1, len(files) // 2, ())
    assert [str(flaw) for flaw in checked.flaws] == []


def test_a_validator_that_finds_something_is_heard(made: list[Made], tmp_path: Path) -> None:
    """The test of the tests: a broken report is an error that no known complaint covers."""
    report = next(one for one in made if one.kind is ResultKind.REPORT)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(report.file.read_bytes().replace(b"UNVERIFIED", b"UNCHECKED "))
    for validate in (validators.dciodvfy, validators.dsrdump):
        found = {broken: validate(broken)}
        assert unexplained(found), validate.__name__


@pytest.fixture(scope="module")
def names_in_archive(made: list[Made], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """SOP Instance UID -> Patient's Name by component group, as Orthanc's DICOMweb JSON tells; one case of each set."""
    need("Orthanc", "dcmsend")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        some = [one for one in made if one.of.case == "pneumonia"]
        files = sorted({path for one in some for path in (one.source, one.file)})
        done = run("dcmsend", "-aec", orthanc.ae_title, "127.0.0.1", orthanc.dicom_port, *files)
        assert done.returncode == 0, done.stdout + done.stderr
        assert orthanc.count() == len(files)
        found = {}
        for study in orthanc.get("/dicom-web/studies"):
            uid = study["0020000D"]["Value"][0]
            for instance in orthanc.get(f"/dicom-web/studies/{uid}/metadata"):
                found[instance["00080018"]["Value"][0]] = instance["00100010"]["Value"][0]
    return found


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_source_and_results_show_the_same_name(
    made: list[Made], names_in_archive: dict[str, dict[str, str]], character_set: str
) -> None:
    for of in (of for of in RESULT_SETS if (of.case, of.character_set) == ("pneumonia", character_set)):
        files = [one.file for one in made if one.of is of]
        source = next(one.source for one in made if one.of is of)
        shown = names_in_archive[sop_instance_uid(source)]
        assert shown["Alphabetic"] == NAMES[character_set]
        if character_set == "Japanese":
            assert (shown["Ideographic"], shown["Phonetic"]) == (IDEOGRAPHIC, PHONETIC)
        assert len(files) >= 5
        assert [names_in_archive[sop_instance_uid(file)] for file in files] == [shown] * len(files)


def sop_instance_uid(file: Path) -> str:
    meta = re.search(rb"\x02\x00\x03\x00UI..([0-9.]+)", file.read_bytes()[:600], re.DOTALL)
    assert meta is not None
    return meta[1].decode()


IMPRESSION: dict[str, str] = {
    "pneumonia": r"AI: PNEUMONIA SUSPECTED\. Certainty of pneumonia: 93 %\. Not verified by a physician\. "
    r"Assessed for pneumonia only\. Research use only\.",
    "normal": r"AI: no pneumonia detected\. Certainty of pneumonia: 3 %\. Not verified by a physician\. .*",
    "between": r"AI: UNCERTAIN\. The AI gives no answer: .* \(15 % and 85 %\)\. Human reading required\. .*",
    "views": r"AI: UNCERTAIN\. The AI gives no answer: .* disagree\. Human reading required\. Research use only\.",
    "unlike": r"AI: UNCERTAIN\. The AI gives no answer: image unlike .* Human reading required\. Research use only\.",
}
UNREADABLE = ("WARNING", "ERROR", "invalid", "Content Item not", "???", "&amp;#")


def printed(made: list[Made], choose: Callable[[Made], bool]) -> str:
    """Body of what dsr2html makes of a report, as lines of text."""
    need("dsr2html")
    file = next(one.file for one in made if one.kind is ResultKind.REPORT and choose(one))
    done = subprocess.run(["dsr2html", str(file)], capture_output=True, timeout=60, check=True)
    assert not [line for line in done.stderr.splitlines() if not line.startswith(b"W: The VR checker")]
    page = done.stdout.decode(re.findall(r"charset=([A-Z0-9-]+)", done.stdout.decode("latin-1"))[0])
    body = page.split("<body>")[1]
    text = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"</(td|h\d|div|p|tr)>|<br>", "\n", body)))
    return "\n".join(line for part in text.splitlines() if (line := " ".join(part.split())))


@pytest.mark.parametrize("case", CASES)
def test_dsr2html_prints_a_report_as_a_radiologist_writes_it(made: list[Made], case: str) -> None:
    """Title, then impression, findings, technique, limitations; whole sentences; nothing that looks like a machine."""
    text = printed(made, lambda one: one.of.case == case and one.of.character_set == "Latin-1")
    lines = text.splitlines()
    wanted = ["Impressions", "Findings", "Technique", "Limitations"]
    assert [line for line in lines if line in wanted] == wanted
    assert lines.index("Diagnostic Imaging Report") < lines.index("Impressions")
    impression = lines[lines.index("Impression:") + 1]
    assert re.fullmatch(IMPRESSION[case], impression), impression
    (finding,) = [line for line in lines[lines.index("Findings") + 1 : lines.index("Technique")] if line != "Finding:"]
    assert finding[0].isupper() and len(finding) <= 80
    technique = lines[lines.index("Technique") + 1 : lines.index("Limitations")]
    assert any("15 %" in line and "85 %" in line for line in technique)
    assert "Assessed for pneumonia only. Nothing else was evaluated." in lines
    assert any(line.startswith("Research use only. Not a medical device.") for line in lines)
    assert {"PRELIMINARY", "UNVERIFIED"} <= set(lines)
    assert not [word for word in UNREADABLE if word in text]


def test_dsr2html_prints_the_patient_s_name(made: list[Made]) -> None:
    for character_set, given, family in (("Latin-1", "Zoë", "Müller"), ("Greek", "Άννα", "Διονυσιος")):
        assert f"{given} {family}" in printed(made, lambda one, name=character_set: one.of.character_set == name)
