"""Every transfer syntax that is offered has a sample, and a decoder that fails at it is found."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid

from cxr_node.dicom.pixels import codecs
from cxr_node.errors import ResourceError, UndecodableError


def test_every_syntax_decodes_its_sample() -> None:
    found = {trial.uid: trial for trial in codecs.trials()}
    assert set(found) == {syntax.uid for syntax in codecs.transfer_syntaxes()}
    assert [trial.name for trial in found.values() if not trial.right] == []
    assert codecs.missing() == []


def test_a_decoder_that_gives_other_values_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = codecs.decode

    def off_by_one(pixel_data: bytes, syntax: str, layout: codecs.Layout) -> object:
        if syntax == uid.RLELossless:
            raise UndecodableError("The pixel data is damaged.")
        return decode(pixel_data, syntax, layout) + np.uint16(syntax == uid.JPEGLSLossless)

    monkeypatch.setattr(codecs, "decode", off_by_one)
    assert {trial.uid for trial in codecs.trials() if not trial.right} == {uid.RLELossless, uid.JPEGLSLossless}


def test_a_sandbox_that_cannot_start_is_the_machine_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise ResourceError("the process that decodes pixel data cannot be started")

    monkeypatch.setattr(codecs, "decode", cannot)
    with pytest.raises(ResourceError):
        codecs.trials()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "transfer_syntaxes", lambda: ())
    assert len(codecs.missing()) == len(codecs.KNOWN)
