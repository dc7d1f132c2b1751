"""The printed page: what is on it for each verdict, whose it is, that nothing is lost, and its DICOM object."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from cxr_node.dicom.render import pdf_page, picture
from cxr_node.dicom.results import encapsulated_pdf
from cxr_node.dicom.results.context import Context
from cxr_node.dicom.words import wording
from tests import builders
from tests.dicom.contexts import CASES, context, of_bytes, picture_of
from tests.dicom.test_context import NAMES, ROOT, named


def made(of: Context) -> Dataset:
    return dcmread(io.BytesIO(encapsulated_pdf.build(of).content))


def pdf(of: Context) -> bytes:
    dataset = made(of)
    content: bytes = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    return content


def tool(program: str, content: bytes, *arguments: str) -> bytes:
    """Run one of poppler's tools on a PDF."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: apt-get install poppler-utils")
    return subprocess.run([program, *arguments], input=content, capture_output=True, check=True, timeout=60).stdout


def words(of: Context) -> str:
    return words_in(pdf(of))


def words_in(content: bytes) -> str:
    """All text of the page, in one line."""
    printed = tool("pdftotext", content, "-layout", "-", "-").decode()
    return " ".join(printed.replace("\u00a0", " ").split())


@pytest.mark.parametrize("case", CASES)
def test_the_page_says_all_that_the_report_says(case: str) -> None:
    of = context(case)
    printed = words(of)
    banner = wording.banner(of.finding)
    for sentence in (
        banner.title,
        banner.subtitle,
        wording.certainty_line(of.finding),
        wording.thresholds_line(of.finding.identity.operating_point),
        wording.summary(of.finding),
        wording.FOOTER,
        of.finding.identity.weights_sha256[:12],
        "Assessed for pneumonia only",
        of.source.ref.sop_instance_uid,
        "Patient: Test, Child1",
        "Patient ID: TEST-0001",
        "Born: 2021-02-03",
        "Study date: 2024-06-01",
        "Accession: ACC00001",
    ):
        assert sentence in printed, sentence
    assert printed.index(banner.title) < printed.index(wording.summary(of.finding)[:20])


def test_where_no_certainty_may_be_stated_no_number_is_printed() -> None:
    printed = words(context("unlike"))
    assert "Certainty of pneumonia: not stated" in printed
    assert "3 %" not in printed.replace("15 %", "").replace("85 %", "")


def test_both_images_or_the_radiograph_alone() -> None:
    images = {case: tool("pdfimages", pdf(context(case)), "-list", "-").decode() for case in ("between", "normal")}
    assert [line.split()[5] for line in images["between"].splitlines()[2:]] == ["gray", "rgb"]
    assert [line.split()[5] for line in images["normal"].splitlines()[2:]] == ["gray"]


@pytest.mark.parametrize("case", ["pneumonia", "normal", "between"])
def test_the_verdict_is_in_its_color_and_survives_a_gray_printer(case: str) -> None:
    of = context(case)
    content = pdf(of)
    drawn = tool("pdftoppm", content, "-r", "50", "-png")
    seen = Image.open(io.BytesIO(drawn)).convert("RGB")
    background, _ = picture.BANNERS[of.finding.decision.verdict]
    assert background in {color for _, color in seen.getcolors(1 << 20)}
    assert wording.banner(of.finding).title in words_in(content)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are_or_not_at_all(name: str) -> None:
    printed = words(of_bytes(named(*NAMES[name])))
    expected = {
        "Latin-1": "Patient: Müller, Zoë",
        "UTF-8": "Patient: Ωμέγα, Ж李",
        "Greek": "Patient: Διονυσιος, Άννα",
        "Cyrillic": "Patient: Люксембург, Анна",
        "Japanese": "Patient: Yamada, Tarou",
    }
    if name == "UTF-8":  # our font has no Han
        expected["UTF-8"] = f"Patient: {pdf_page.ILLEGIBLE}"
    assert expected.get(name, f"Patient: {pdf_page.ILLEGIBLE}") in printed
    assert "Patient ID: TEST-0001" in printed


@pytest.mark.parametrize(("text", "printable"), [("Müller", True), ("Ж", True), ("李", False), ("قباني", False)])
def test_what_the_font_cannot_write_is_known(text: str, printable: bool) -> None:
    assert pdf_page.is_printable(text) is printable


def test_missing_identifiers_are_seen_to_be_missing() -> None:
    source = builders.radiograph(PatientName=None, AccessionNumber=None, PatientBirthDate="")
    printed = words(context(dataset=source))
    assert "Patient: - " in printed
    assert "Born: - " in printed
    assert "Accession: - " in printed


@pytest.mark.parametrize("shape", [(320, 288), (900, 300), (128, 640)])
@pytest.mark.parametrize("case", CASES)
def test_one_page_holds_everything(case: str, shape: tuple[int, int]) -> None:
    remarks = tuple(f"Remark {number}: the header does not tell what it should of this image." for number in range(6))
    radiograph = picture_of(builders.chest(*shape) / 4095, remarks=remarks)
    heatmap = builders.FixedPredictor().examine(radiograph).heatmap
    of = context(case, builders.radiograph(PatientName="N" * 64, AccessionNumber="1" * 16))
    of = replace(of, radiograph=radiograph, finding=replace(of.finding, heatmap=heatmap))
    content = pdf(of)
    assert b"Pages:           1\n" in tool("pdfinfo", content, "-")
    assert remarks[-1] in words_in(content)


def test_more_than_a_page_is_not_lost() -> None:
    remarks = tuple(f"Remark {number} " + "that is long " * 12 for number in range(40))
    of = context()
    of = replace(of, radiograph=replace(of.radiograph, remarks=remarks))
    printed = words(of)
    assert "Remark 39" in printed
    assert of.finding.identity.weights_sha256[:12] in printed


def test_the_dicom_object() -> None:
    of = context()
    dataset = made(of)
    assert (dataset.MIMETypeOfEncapsulatedDocument, dataset.Modality) == ("application/pdf", "DOC")
    assert (dataset.BurnedInAnnotation, dataset.VerificationFlag) == ("YES", "UNVERIFIED")
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert dataset.SourceInstanceSequence[0].ReferencedSOPInstanceUID == of.source.ref.sop_instance_uid
    assert len(dataset.EncapsulatedDocument) % 2 == 0
    assert b"fpdf" not in pdf(of).lower()  # an upgrade of the library must not show


def digest() -> str:
    return hashlib.sha256(encapsulated_pdf.build(context()).content).hexdigest()


@pytest.mark.whole
def test_the_same_bytes_at_any_time_in_any_zone() -> None:
    program = "from tests.dicom.test_pdf_page import digest; print(digest())"
    environment: dict[str, Any] = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "America/Lima", "SOURCE_DATE_EPOCH": "1"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=Path(ROOT), env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == digest()
