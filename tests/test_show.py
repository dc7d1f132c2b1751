"""What a person sees in 80 columns: whole UIDs to copy, verdicts in words, never colour alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cxr_node.cli import ledger_tables, tables
from cxr_node.config import loader
from cxr_node.dicom.words import names
from cxr_node.domain import PNEUMONIA, AbstainReason, InstanceRef, Origin, Reason
from cxr_node.node.ledger import queries, status
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.outcome import Rejected

UID = "2.25.156555107011265429406234759924849916479"
AT = datetime(2024, 6, 1, 12, tzinfo=UTC)


def printed(shown: object) -> str:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def ledger_with_one(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path)
    ref = InstanceRef(
        study_instance_uid="1.2",
        series_instance_uid="1.3",
        sop_instance_uid=UID,
        sop_class_uid="1.4",
        transfer_syntax_uid="1.5",
        patient_key="k",
        accession_key=None,
    )
    origin = Origin(calling_ae_title="PACS", peer_host="::1", received_at=AT)
    ledger.add(ref, origin, content_sha256="ab" * 32, size_bytes=5)
    return ledger


def test_status_and_trace_show_whole_uids_and_reasons(tmp_path: Path) -> None:
    ledger = ledger_with_one(tmp_path)
    settings = loader.parse(
        {
            "spool": {"path": str(tmp_path)},
            "destinations": [{"name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image"}],
        }
    )
    waiting = printed(ledger_tables.status(status.look(ledger, settings), {}))
    assert "".join(waiting.split()).count(UID[:20]) == 1
    assert "PACS@127.0.0.1:104" in waiting
    job = ledger.claim_instance("me", 60)
    assert job is not None
    ledger.settle_rejected(job, Rejected(reason=Reason.NOT_FRONTAL, sentence="The view is not frontal (PA or AP)."))
    (story,) = queries.trace(ledger, UID)
    told = printed(ledger_tables.story(story, {}))
    assert UID in told
    assert "view-not-frontal" in told
    assert "The view is not frontal" in told
    seen = printed(ledger_tables.status(status.look(ledger, settings), {}))
    assert "REJECTED" in seen
    assert "view-not-frontal" in seen
    ledger.close()


def test_every_verdict_is_a_word_and_a_symbol() -> None:
    words = [tables.verdict(PNEUMONIA.word(verdict), PNEUMONIA).plain for verdict in names.SYMBOLS]
    assert len({word[0] for word in words}) == len(words) == 4
    assert [word[2:] for word in words] == [PNEUMONIA.name(verdict) for verdict in names.SYMBOLS]
    assert tables.plain({"abstain_reason": AbstainReason.VIEWS_DISAGREE, "at": AT}) == {
        "abstain_reason": "views-disagree",
        "at": AT.isoformat(),
    }


def test_a_certainty_stands_beside_pneumonia_alone() -> None:
    """0.1 % beside UNCERTAIN reads as negative, and 84.996 % rounds onto a threshold that is not at hand."""
    assert tables.stated(0.984, None, "PNEUMONIA") == "98 %"
    assert tables.stated(0.9996, None, "PNEUMONIA") == "above 99 %"
    assert tables.stated(0.001, AbstainReason.UNLIKE_TRAINING_DATA, "UNCERTAIN") == "-"
    assert tables.stated(0.84996, AbstainReason.BETWEEN_THRESHOLDS, "UNCERTAIN") == "-"
    assert tables.stated(0.001, None, "NORMAL") == "-"
    assert tables.stated(None, None, None) == "-"
