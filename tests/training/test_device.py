"""What a training shows of its progress."""

from __future__ import annotations

import pytest

from cxr_node.training.data.device import bar_of


def test_what_nobody_asked_for_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar_of(shown=True) as bar:
        bar.add_task("ask teachers", total=0)
        task = bar.add_task("read images", total=2)
        bar.advance(task)
        bar.advance(task)
    shown = capsys.readouterr()
    assert "read images" in shown.err and "2/2" in shown.err
    assert "ask teachers" not in shown.err and not shown.out
