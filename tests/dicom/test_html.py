"""Files for people show what the objects say, and no patient."""

from __future__ import annotations

import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from cxr_node.dicom.render import html
from cxr_node.dicom.results import basic_text_sr, secondary_capture
from cxr_node.dicom.words import wording
from tests import builders
from tests.dicom.contexts import CASES, context


class _Outline(HTMLParser):
    """Text and balance of an HTML fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(fragment: str) -> _Outline:
    outline = _Outline()
    outline.feed(fragment)
    assert outline.open == []
    return outline


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_one_balanced_article(case: str) -> None:
    of = context(case)
    outline = parsed(html.report_html(basic_text_sr.build(of).content))
    assert wording.summary(of.finding) in outline.words
    assert "Impressions" in outline.words
    assert any("Research use only." in word for word in outline.words)
    assert "preliminary, unverified" in outline.words


def test_words_are_escaped() -> None:
    of = context()
    of = replace(of, radiograph=replace(of.radiograph, remarks=("<script>alert('x')</script> & more",)))
    fragment = html.report_html(basic_text_sr.build(of).content)
    assert "<script>" not in fragment
    assert "<script>alert('x')</script> & more" in parsed(fragment).words


def test_no_patient_in_the_page() -> None:
    source = builders.radiograph(PatientName="Secret^Name", PatientID="SECRET-ID", AccessionNumber="SECRET-ACC")
    fragment = html.report_html(basic_text_sr.build(context(dataset=source)).content)
    assert "secret" not in fragment.lower()


def test_the_png_holds_the_same_pixels() -> None:
    content = secondary_capture.build(context()).content
    with Image.open(io.BytesIO(html.picture_png(content))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), dcmread(io.BytesIO(content)).pixel_array)
