"""Reports from files of every format: which study they name, what they say, what is left out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cxr_node.assurance import reports
from cxr_node.assurance.report import Readers, Report, Source
from cxr_node.assurance.report_rules import Reader, Said
from cxr_node.errors import DataError
from cxr_node.result_kinds import ResultKind
from tests.builders import item, part10
from tests.dicom import studies as cases
from tests.messages import studies

READER = Reader()


def read(tmp_path: Path, *contents: str | bytes) -> tuple[list[Report], Readers]:
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(content.encode() if isinstance(content, str) else content)
    readers = Readers(READER)
    return list(reports.read(paths, readers)), readers


def keys(*numbers: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset({sha256(number.encode()).hexdigest()}) for number in numbers)


def message(*observations: str, status: str = "F", fields: dict[int, str] | None = None, end: str = "\r") -> str:
    values = {3: "F1^RIS", 18: "A1", 22: "20260301120000+0100", 25: status} | (fields or {})
    request = "|".join(["OBR", *(values.get(number, "") for number in range(1, 26))])
    head = "MSH|^~\\&|RIS|H|CXR|H|20260301130000||ORU^R01^ORU_R01|1|P|2.5.1"
    rows = [f"OBX|{number}|{each}||||||F" for number, each in enumerate(observations, 1)]
    return end.join([head, "PID|1||4711^^^H||Doe^Jane", "ORC|RE|P1|F1", request, *rows, ""])


def test_oru_names_its_study_by_digests_and_is_read_in_sections(tmp_path: Path) -> None:
    text = "FT|59776-5^Findings^LN||Possible pneumonia.\\.br\\Heart normal."
    found, _ = read(tmp_path, message(text, "TX|19005-8^Impression^LN||No pneumonia."))
    assert found[0].accession_keys == keys("A1", "F1", "P1")
    assert (found[0].reading.said, found[0].source) == (Said.ABSENT, Source.ORU)
    assert found[0].said_at == datetime(2026, 3, 1, 11, tzinfo=UTC)
    assert "Jane" not in repr(found) and "4711" not in repr(found)


def test_oru_in_frames_in_batches_and_with_line_feeds(tmp_path: Path) -> None:
    one = message("TX|18748-4^^LN||Left lower lobe pneumonia.")
    framed = f"\x0b{one}\x1c\r\x0b{one}\x1c\r"
    batch = f"FHS|^~\\&\rBHS|^~\\&\r{one}BTS|1\rFTS|1\r"
    lines = message("TX|^Report||Lungs clear.", "TX|^Report||No pneumonia.", end="\n")
    found, _ = read(tmp_path, framed, batch, lines)
    assert [each.reading.said for each in found] == [Said.PRESENT, Said.PRESENT, Said.PRESENT, Said.ABSENT]


def test_oru_lines_of_one_sentence_belong_together(tmp_path: Path) -> None:
    found, _ = read(tmp_path, message("TX|&GDT||There is no evidence of", "TX|&GDT||pneumonia."))
    assert found[0].reading.said is Said.ABSENT


def test_oru_that_is_not_final_is_left_out_and_a_cancelled_one_withdraws(tmp_path: Path) -> None:
    text = "TX|^Report||Pneumonia."
    found, readers = read(tmp_path, *(message(text, status=status) for status in ("P", "R", "X", "C")))
    assert [each.reading.rule for each in found] == ["withdrawn", "affirmed"]
    assert readers.skipped.not_final == 2


def test_oru_names_its_study_by_uid(tmp_path: Path) -> None:
    one = (
        message("TX|^Report||Pneumonia.", "ST|110180^Study Instance UID^DCM||1.2.3")
        + "ZDS|1.2.4^RIS^Application^DICOM\r"
    )
    found, _ = read(tmp_path, one)
    assert found[0].uids == {"1.2.3", "1.2.4"}


def test_csv_has_labels_or_texts(tmp_path: Path) -> None:
    found, _ = read(
        tmp_path,
        "Accession Number;Label;Date\nA1;present;2026-03-01\nA2;0;\nA3;cannot say;\n",
        "study_instance_uid,report\n1.2.3,No pneumonia.\n",
        "\ufeffimage\tlabel\n1.2.3.4\tyes\n",
    )
    assert [each.reading.said for each in found] == [
        Said.PRESENT, Said.ABSENT, Said.NOT_STATED, Said.ABSENT, Said.PRESENT,
    ]  # fmt: skip
    assert found[0].accession_keys == keys("A1") and found[0].said_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert found[3].uids == {"1.2.3"} and not found[3].is_of_image
    assert found[4].uids == {"1.2.3.4"} and found[4].is_of_image


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("accession,label\nA1,SECRET\n", "row 2: the label"),
        ("name,label\nSECRET,1\n", "lacks a column"),
        ("{SECRET", "no JSON"),
        ("[" * 100_000, "malformed|no JSON"),
        ('{"resourceType":"DiagnosticReport","status":"final","identifier":"SECRET"}', "malformed"),
        ('{"resourceType":"DiagnosticReport","status":["SECRET"]}', "malformed"),
        (b"\0" * 128 + b"DICMSECRET", "cannot be read"),
    ],
)
def test_a_mistake_is_named_without_a_value(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path, content)
    assert "SECRET" not in str(error.value)


def report_sr(text: str, **more: object) -> bytes:
    heading = item(CodeValue="121073", CodingSchemeDesignator="DCM", CodeMeaning="Impression")
    line = item(RelationshipType="CONTAINS", ValueType="TEXT", ConceptNameCodeSequence=[heading], TextValue=text)
    dataset = Dataset()
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "SOPInstanceUID": "1.2.9", "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.8", "AccessionNumber": "A1", "PatientName": "Doe^Jane", "ContentDate": "20260301",
        "ContentTime": "120000.5", "ValueType": "CONTAINER", "ContentSequence": [line],
    }  # fmt: skip
    for keyword, value in (values | more).items():
        setattr(dataset, keyword, value)
    return part10(dataset, ExplicitVRLittleEndian)


def test_sr_of_a_radiologist(tmp_path: Path) -> None:
    found, readers = read(
        tmp_path, report_sr("Right lower lobe pneumonia."), report_sr("Normal.", PreliminaryFlag="PRELIMINARY")
    )
    assert [(each.source, each.reading.said, each.uids) for each in found] == [(Source.SR, Said.PRESENT, {"1.2.1"})]
    assert found[0].accession_keys == keys("A1")
    assert found[0].said_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert readers.skipped.not_final == 1


def test_what_this_node_said_agrees_with_nobody(tmp_path: Path) -> None:
    made = studies.made(cases.case("pneumonia"))
    own = [made[kind].content for kind in (ResultKind.REPORT, ResultKind.HL7, ResultKind.FHIR)]
    found, readers = read(tmp_path, *own)
    assert not found and readers.skipped.own == 3


def diagnostic_report(**more: object) -> dict[str, object]:
    accession = {"type": {"coding": [{"code": "ACSN"}]}, "value": "A1"}
    return {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "issued": "2026-03-01T12:00:00.123Z",
        "basedOn": [{"identifier": accession}],
        "imagingStudy": [{"reference": "urn:uuid:1"}],
    } | more


def bundle(*resources: dict[str, object]) -> dict[str, object]:
    study = {"resourceType": "ImagingStudy", "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.1"}]}
    entries = [{"resource": each} for each in resources] + [{"fullUrl": "urn:uuid:1", "resource": study}]
    return {"resourceType": "Bundle", "entry": entries}


def test_fhir_in_bundles_lists_and_lines(tmp_path: Path) -> None:
    one = diagnostic_report(conclusion="No pneumonia.")
    found, _ = read(
        tmp_path,
        json.dumps(bundle(one)),
        json.dumps([one, one]),
        "\n".join(json.dumps(each) for each in (one, one)),
    )
    assert {each.reading.said for each in found} == {Said.ABSENT} and len(found) == 5
    assert found[0].uids == {"1.2.1"} and found[0].accession_keys == keys("A1")
    assert found[0].said_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_fhir_says_it_by_code_by_form_or_by_narrative(tmp_path: Path) -> None:
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "233604007"}]}
    html = base64.b64encode(b"<p>Findings:</p><p>No &amp; pneumonia&nbsp;.</p>").decode()
    found, readers = read(
        tmp_path,
        json.dumps(
            [
                diagnostic_report(conclusionCode=[code]),
                diagnostic_report(presentedForm=[{"contentType": "text/html; charset=utf-8", "data": html}]),
                diagnostic_report(text={"div": "<div>Left lower lobe pneumonia</div>"}),
                diagnostic_report(status="preliminary", conclusion="Pneumonia."),
                diagnostic_report(status="entered-in-error", conclusion="Pneumonia."),
            ]
        ),
    )
    assert [(each.reading.said, each.reading.rule) for each in found] == [
        (Said.PRESENT, "code"), (Said.ABSENT, "negated"), (Said.PRESENT, "affirmed"), (Said.NOT_STATED, "withdrawn"),
    ]  # fmt: skip
    assert readers.skipped.not_final == 1


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "one.csv").write_text("accession,label\nA1,1\n")
    (tmp_path / "in" / "deep" / "two.hl7").write_text(message("TX|^Report||Pneumonia."))
    assert len(list(reports.read([tmp_path / "in"], Readers(READER)))) == 2
