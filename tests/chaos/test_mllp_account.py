"""The account of messages: each kind of harm is seen, and a repeat under the same control ID is none."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest

from tests.chaos import mllp_archive
from tests.chaos.accounting import Held
from tests.chaos.mllp_archive import MOODS, TEMPERS, Messages, read, settle
from tests.messages.test_oru import message

STORED = [message("pneumonia"), message("normal")]
TAKEN = [read(content.replace(b"MSH|^~\\&||||", b"MSH|^~\\&|CXR_NODE|HOSP|RIS|", 1)) for content in STORED]
NODE = Held(rows=[], files=[(hashlib.sha256(content).hexdigest(), content) for content in STORED], unfinished=0)
STUDIES = {one.study_instance_uid for one in TAKEN}


def test_a_message_is_told_by_its_control_id_and_study_and_counts_as_it_is_stored() -> None:
    assert len({one.sop_instance_uid for one in TAKEN}) == 2
    assert all(len(one.sop_instance_uid) == 20 and one.study_instance_uid.startswith("1.2.") for one in TAKEN)
    assert [one.sha256 for one in TAKEN] == [hashlib.sha256(content).hexdigest() for content in STORED]


def test_all_is_well_and_a_repeat_is_the_same_message() -> None:
    one = replace(TAKEN[0], at=9.0)
    assert settle(NODE, STUDIES, TAKEN[:1]).is_clean
    again = settle(NODE, STUDIES, [TAKEN[0], one, one])
    assert again == Messages(lost=0, doubled=0, truncated=0, repeated=2)


def test_lost_is_a_study_without_a_message() -> None:
    assert settle(NODE, [*STUDIES, "1.2.3"], TAKEN[:1]).lost == 1


@pytest.mark.parametrize("other", [{"sop_instance_uid": "X" * 20}, {"sha256": TAKEN[1].sha256}])
def test_doubled_is_another_control_id_or_another_text_under_it(other: dict[str, str]) -> None:
    assert settle(NODE, STUDIES, [TAKEN[0], replace(TAKEN[0], **other)]).doubled == 1


def test_truncated_is_what_the_node_does_not_have() -> None:
    cut = read(STORED[0][:-40])
    assert settle(NODE, STUDIES, [TAKEN[0], cut]).truncated == 1


def test_every_mood_takes_the_message_where_it_says_so_or_says_nothing() -> None:
    """Else a message that was accepted would be lost by the receiver, and no sender could know."""
    for mood in (*MOODS, mllp_archive.accepting):
        reply = mood(STORED[0])
        said = b"".join(piece for piece in reply.pieces if piece)
        assert reply.is_taken or b"MSA|AA|" not in said
    assert TEMPERS["moody"](random.Random(1))(STORED[0]).pieces
