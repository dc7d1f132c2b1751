"""The log of a period: all that it must say, nothing of a patient, and no line that could be changed unseen."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_node.assurance import log_export
from cxr_node.errors import DataError
from cxr_node.node.ledger import operator_moves, set_aside
from cxr_node.node.ledger.states import SetAsideReason
from tests.dicom import studies
from tests.node.test_study_rebuild import Node, opened


def lines(node: Node, file: Path, **window: Any) -> list[dict[str, Any]]:
    begin = window.get("since", node.clock() - timedelta(days=1))
    end = window.get("until", node.clock() + timedelta(days=1))
    chain = log_export.write(file, log_export.entries(node.ledger, node.config, begin, end))
    told = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert chain.lines == len(told) and log_export.verify(file) == chain
    return told


def test_the_log_says_who_what_by_what_and_where(tmp_path: Path, engine: dict[str, Any]) -> None:
    with opened(tmp_path, **engine) as node:
        node.comes(1)
        node.comes(2, ViewPosition="LL")
        node.answers()
        operator_moves.rejudge(node.ledger, [1], by="anna")
        node.answers()
        node.comes(3)
        set_aside.set_aside(node.ledger, [3], SetAsideReason.DUPLICATE, by="olga")
        head, *told, end = lines(node, tmp_path / "log.jsonl")
        assert head["line"] == "log" and head["config_sha256"] == node.config.answer_sha256
        assert end == {"line": "end", "lines": len(told) + 2, "previous": end["previous"]}
        images = [line for line in told if line["line"] == "image"]
        first, lateral, aside = images
        assert (first["calling_ae_title"], first["verdict"]) == ("MODALITY", "PNEUMONIA")
        assert first["operating_point"]["report_at"] and len(first["weights_sha256"]) == 64
        assert first["config_sha256"] == node.config.answer_sha256
        assert {each["destination"] for each in first["deliveries"]} == {"pacs"}
        assert all(each["state"] == "DELIVERED" for each in first["deliveries"])
        assert "judged again, by anna" in {each["detail"] for each in first["events"]}
        assert (lateral["verdict"], lateral["reason"], lateral["weights_sha256"]) == (
            "REJECTED",
            "view-not-frontal",
            None,
        )
        assert any("olga" in each["detail"] for each in aside["events"])


def test_what_happened_later_to_earlier_images_is_in_it(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        node.answers()
        node.clock.forward(10 * 86_400)
        operator_moves.rejudge(node.ledger, [1], by="anna")
        told = lines(node, tmp_path / "log.jsonl")
        assert [line["line"] for line in told] == ["log", "event", "end"]
        assert told[1]["instance"] == 1 and "anna" in told[1]["detail"]


def test_a_changed_line_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        for number in (1, 2, 3):
            node.comes(number)
        file = tmp_path / "log.jsonl"
        lines(node, file)
        content = file.read_text("utf-8")
        with pytest.raises(DataError, match="exists"):
            log_export.write(file, [])
        rows = content.splitlines(keepends=True)
        for changed in (
            content.replace("MODALITY", "MODALITX", 1),
            "".join(rows[:1] + rows[2:]),
            "".join(rows[:-1]),
            "".join([*rows[:2], rows[1], *rows[2:]]),
            content + "{}\n",
            "nothing\n",
            "",
        ):
            file.write_text(changed, "utf-8")
            with pytest.raises(DataError):
                log_export.verify(file)


def test_nothing_of_a_patient_is_in_it(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        node.comes(1)
        node.answers()
        lines(node, tmp_path / "log.jsonl")
        text = (tmp_path / "log.jsonl").read_text("utf-8")
        dataset = studies.source(1)
        from cxr_node.dicom.verify.plain import read

        header = read(dataset).dataset
        named = (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "AccessionNumber",
            "StudyInstanceUID",
            "SOPInstanceUID",
        )
        values = {str(header[name]) for name in named if header.get(name)}
        assert values and not [value for value in values if value in text]
