"""The conformance statement is what the code does: written anew it equals the page, and it leaves nothing out."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_node.config.destinations import Hl7CharacterSet
from cxr_node.config.schema import Study
from cxr_node.conformance import statement
from cxr_node.dicom.pixels import codecs
from cxr_node.node.commitment import scu
from cxr_node.node.deliver import storage_scu
from cxr_node.node.ledger import ripening
from cxr_node.node.network import statuses
from cxr_node.node.network.association import Entity
from cxr_node.node.network.file_meta import IMPLEMENTATION_CLASS_UID
from cxr_node.node.priors import query, retrieve
from cxr_node.node.receive import receiver, reception, server, storage_scp
from cxr_node.node.receive.acse import Rejection
from cxr_node.result_kinds import DICOM_KINDS, ResultKind
from tests.dicom import studies
from tests.messages.studies import CONFIG

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "conformance.md"
UID = re.compile(r"\b1\.2\.840\.10008(?:\.\d+)+\b")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the command writes, in a process of its own, far away in time zone and hash seed."""
    file = tmp_path_factory.mktemp("statement") / "conformance.md"
    command = [sys.executable, "-m", "cxr_node", "conformance", "--out", str(file)]
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return file.read_text("utf-8")


def section(written: str, heading: str) -> str:
    """From a heading to the next one of any level."""
    start = written.index(f" {heading}\n")
    end = written.find("\n#", start)
    return written[start : end if end > 0 else None]


def rows(written: str, heading: str) -> list[list[str]]:
    """Cells of the table rows of a section."""
    lines = section(written, heading).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]


def test_the_committed_page_is_what_the_command_writes(written: str) -> None:
    assert written == PAGE.read_text("utf-8"), f"run: cxr-node conformance --out {PAGE}"


def test_what_the_receiver_accepts_is_listed_and_nothing_else(written: str) -> None:
    listed = set(UID.findall(section(written, "4.2.1.3 Association acceptance")))
    syntaxes = [syntax.uid for syntax in codecs.transfer_syntaxes()]
    assert listed == {*server.supported(syntaxes), *syntaxes, scu.SOP_CLASS}


def test_what_deliver_proposes_is_listed_and_nothing_else(written: str) -> None:
    listed = set(UID.findall(section(written, "4.2.2.2 Association initiation")))
    produced = {uid for uid in listed if uid.startswith("1.2.840.10008.5.1.4")}
    assert set(storage_scu.SOP_CLASSES) <= produced
    assert listed == {uid for pair in storage_scu.proposed(produced, statement.COMPRESSED) for uid in pair} | {
        scu.SOP_CLASS
    }


def test_every_status_that_a_report_can_be_answered_is_listed(written: str) -> None:
    """A status is what `commitment` names by a constant; what it makes of answers to its own requests is a table."""
    listed = {row[0] for row in rows(written, "4.2.1.4 SOP specific conformance") if len(row) == 3}
    constants = {
        value for name, value in vars(scu).items() if name.isupper() and isinstance(value, int) and name[0] != "_"
    }
    own = {scu.REQUEST, scu.SUCCESSFUL, scu.FAILURES_EXIST, scu.DEFAULT_REASON}
    assert listed == {"status", *(f"0x{value:04X}" for value in constants - own)}


def test_every_kind_of_result_is_described(written: str) -> None:
    described = {row[0] for row in rows(written, "8.1.1 Result objects")}
    assert {kind.value for kind in DICOM_KINDS} <= described


def test_every_status_that_the_receiver_can_answer_is_listed(written: str) -> None:
    """A status is what `statuses` names by a constant and the receiver's room puts into a response or a refusal."""
    sources = (Path(module.__file__).read_text() for module in (storage_scp, reception, receiver))
    tree = ast.parse("\n".join(source.replace("from __future__ import annotations", "") for source in sources))
    names = {
        name for name, value in vars(statuses).items() if name.isupper() and isinstance(value, int) and name[0] != "_"
    }
    used = {
        argument.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RefusedError"
        for argument in node.args[:1]
        if isinstance(argument, ast.Name)
    }
    assert used | {"SUCCESS"} == names
    listed = {row[0] for row in rows(written, "4.2.1.4 SOP specific conformance")}
    assert {f"0x{getattr(statuses, name):04X}" for name in names} <= listed


def test_every_status_that_deliver_knows_is_listed_in_its_order(written: str) -> None:
    listed = [row for row in rows(written, "4.2.2.3 SOP specific conformance") if row[0].startswith("0x")]
    assert [row[1] for row in listed] == [row.words for row in statuses.TABLE]
    for cells, row in zip(listed, statuses.TABLE, strict=True):
        example = int(cells[0][2:].replace("x", "F"), 16)
        assert statuses.judge(example) is row
        assert ("settled" in cells[2], "DEAD" in cells[2]) == (
            row.action is statuses.Action.DELIVERED,
            row.action is statuses.Action.REFUSED,
        )


def test_every_rejection_is_explained(written: str) -> None:
    explained = {row[0] for row in rows(written, "4.2.1.3 Association acceptance")}
    assert {", ".join(map(str, rejection.value)) for rejection in Rejection} <= explained


def test_deliver_introduces_itself_as_the_statement_says(written: str) -> None:
    entity = Entity("CXR_NODE", 1.0)
    assert entity.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert f"| Implementation Class UID | {IMPLEMENTATION_CLASS_UID} |" in section(
        written, "4.2.2.1 Association policies"
    )


def test_uncertain_has_no_word_of_presence_or_absence(written: str) -> None:
    """Where the statement tells values by verdict, it tells the right ones."""
    coded = rows(written, "8.3 Coded terminology and templates")
    assert [row[6] for row in coded if '"Present"' in row[4]] == ["PNEUMONIA, several images"] * 2
    told = [row for row in coded if "Absent" in row[4] and "several images" not in row[6]]
    assert len(told) == 2
    for row in told:
        values = {value.split(" for ")[1]: value for value in row[4].split("; ")}
        assert "Present" not in row[4]
        assert "Absent" in values["NORMAL"]
        assert "Undetermined" in values["UNCERTAIN, UNCERTAIN (no certainty)"]


def test_the_integration_statement_answers_every_item(written: str) -> None:
    items = {row[0].removesuffix(" †"): row for row in rows(written, "IHE integration statement")}
    assert all(len(items[f"AIR-{number}"][3]) > 10 for number in range(1, 19))


def test_what_messages_are_made_of_is_stated(written: str) -> None:
    told = section(written, "4.2.4 deliver (HL7 version 2 sender, FHIR client)")
    case = studies.case("pneumonia", "normal", config=CONFIG)
    messages = {each.kind: each.content for each in studies.report(case, CONFIG).artifacts if not each.sop_class_uid}
    segments = {line.split("|")[0] for line in messages[ResultKind.HL7].decode().split("\r") if line}
    assert all(re.search(rf"\b{each}\b", told) for each in segments | {"TQ1"})
    entries = json.loads(messages[ResultKind.FHIR])["entry"]
    assert ", ".join(entry["resource"]["resourceType"] for entry in entries) in told
    assert all(each.value in told for each in Hl7CharacterSet)


def test_a_claim_is_made_of_one_profile_alone(written: str) -> None:
    stated = section(written, "IHE integration statement")
    claimed, _, others = stated.partition("Other profiles: no actor is claimed.")
    assert claimed.count("| Evidence Creator |") == 1
    names = {row[0] for row in rows(written, "IHE integration statement") if row[1].startswith(("RAD-", "ITI-"))}
    assert len(names) >= 6 and all(each in others for each in names)
    assert "**AIW-I**" in claimed and "the profile is not claimed as a whole" in claimed


@pytest.mark.parametrize("word", ["None", "Undefined", "dataclass", " at 0x"])
def test_nothing_of_the_template_s_machinery_shows(written: str, word: str) -> None:
    lines = [line for line in written.splitlines() if line != "None."]
    assert not [line for line in lines if word in line and "(None" not in line]


def test_what_a_study_and_its_priors_bring_is_stated(written: str) -> None:
    """A report of several images, its predecessor, its priors, the defaults of ripeness, and the queries."""
    model = section(written, "4.1 Implementation model")
    settings = Study()
    assert f"{settings.quiet_s:g} s after its last image" in model
    assert f"{settings.max_wait_s:g} s after the first" in model
    assert f"{ripening.URGENT_QUIET_S:g} s after its last image" in model
    made = section(written, "8.1.4 Attributes made here")
    assert all(made.count(tag) >= 1 for tag in ("(0040,A360)", "(0040,A385)"))
    tree = [row for row in rows(written, "8.3 Coded terminology and templates") if "Previous Finding" in row[3]]
    assert [row[6] for row in tree] == ["several images"] * 2
    opened = section(written, "4.2.2.2 Association initiation")
    assert all(f"| {uid} | SCU |" in opened for uid in (retrieve.FIND, retrieve.GET))
    assert all(f"| {uid} | SCP, by SCP/SCU Role Selection |" in opened for uid in query.SOP_CLASSES)
