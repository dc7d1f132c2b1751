"""The codes that results name, against pydicom's dictionary of the standard's."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes as dictionary

from cxr_node.dicom.words import codes
from cxr_node.dicom.words.codes import Code

NAMED = [
    (scheme.__name__, keyword, code)
    for scheme in (codes.DCM, codes.SCT, codes.LN)
    for keyword, code in vars(scheme).items()
    if isinstance(code, Code)
]


def test_each_scheme_names_some() -> None:
    assert {scheme for scheme, _, _ in NAMED} == {"DCM", "SCT", "LN"}


@pytest.mark.parametrize(("scheme", "keyword", "code"), NAMED)
def test_a_keyword_means_what_the_standard_means(scheme: str, keyword: str, code: Code) -> None:
    assert tuple(code) == tuple(getattr(getattr(dictionary, scheme), keyword))
