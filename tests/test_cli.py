"""The command line as a user meets it: exit codes, one sentence for each mistake, and what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cxr_node.cli.node import app
from cxr_node.node.ledger import commitments
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.spool.spool import Spool
from cxr_node.tools.trial_node import Recorder
from tests import builders
from tests.node import peers, workplace

RUNNER = CliRunner()
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def write_config(folder: Path, **sections: object) -> Path:
    file = folder / "node.yaml"
    file.write_text(yaml.safe_dump({"spool": {"path": str(folder / "spool"), "min_free_mib": 1}, **sections}))
    return file


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str) -> None:
    shown = RUNNER.invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_help_reads_no_schema_and_loads_no_room() -> None:
    """What it imports is all that a person waits for: 0.2 s of the processor more with the configuration's schema."""
    program = (
        "import sys\n"
        "from cxr_node.cli.node import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{'pydantic', 'yaml', 'numpy', 'pydicom', 'sqlalchemy', 'rich'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "rich"


@pytest.mark.parametrize("command", ["serve", "receive", "work", "deliver", "check", "status"])
def test_a_wrong_configuration_is_one_line_and_exit_78(command: str, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("spool: {path: x}\nlisten: {prt: 1}\n")
    shown = RUNNER.invoke(app, [command, "--config", str(file)])
    assert shown.exit_code == 78
    assert shown.output.replace("\n", "").count("listen.prt: unknown key; did you mean 'port'?") == 1
    assert "Traceback" not in shown.output


def test_serve_refuses_weights_that_were_changed(tmp_path: Path) -> None:
    shown = RUNNER.invoke(app, ["serve", "--config", str(write_config(tmp_path, model={"profile": "nonesuch"}))])
    assert shown.exit_code == 78
    assert "no profile 'nonesuch'" in shown.output


def test_status_without_a_ledger_says_what_is_missing(tmp_path: Path) -> None:
    shown = RUNNER.invoke(app, ["status", "--config", str(write_config(tmp_path))])
    assert shown.exit_code == 78
    assert "no ledger yet" in shown.output.replace("\n", " ")


def test_rebuild_receives_again_what_the_spool_has(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    none = RUNNER.invoke(app, ["rebuild", "--config", str(config)])
    assert none.exit_code == 78
    assert "no spool yet" in none.output.replace("\n", " ")
    spool = Spool(tmp_path / "spool")
    damaged = spool.begin()
    damaged.write(b"no DICOM at all")
    spool.store_object(damaged, datetime.now(UTC))
    for number in (1, 2):
        part = spool.begin()
        part.write(builders.part10(builders.radiograph(number)))
        spool.store_object(part, datetime.now(UTC))
    (tmp_path / "spool" / FILE_NAME).write_bytes(b"no database either")
    for received in (2, 0):
        shown = RUNNER.invoke(app, ["rebuild", "--config", str(config)])
        assert shown.exit_code == 1
        assert f"3 objects in the spool, {received} of them received again" in shown.output
        assert "1 objects are damaged beyond their header" in shown.output.replace("\n", " ")
    (aside,) = (tmp_path / "spool").glob(f"{FILE_NAME}.damaged-*")
    assert aside.read_bytes() == b"no database either"
    state = RUNNER.invoke(app, ["status", "--json", "--config", str(config)])
    assert json.loads(state.output)["instances"]["RECEIVED"] == 2


def test_missing_files_are_exit_2() -> None:
    assert RUNNER.invoke(app, ["classify", "/nonexistent"]).exit_code == 2
    assert RUNNER.invoke(app, ["send", "/nonexistent", "--to", "A@127.0.0.1:1"]).exit_code == 2


def test_a_wrong_address_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.part10(builders.radiograph()))
    shown = RUNNER.invoke(app, ["send", str(file), "--to", "nowhere"])
    assert shown.exit_code == 2
    assert "AE@host:port" in shown.output


def test_send_stores_dicom_and_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(builders.part10(builders.radiograph()))
    (tmp_path / "b.dcm").write_bytes(b"rubbish")
    with Recorder(tmp_path / "pacs") as pacs:
        shown = RUNNER.invoke(app, ["send", str(tmp_path / "a.dcm"), "--to", str(pacs.address)])
        assert shown.exit_code == 0, shown.output
        assert len(pacs.stored) == 1
        shown = RUNNER.invoke(app, ["send", str(tmp_path / "b.dcm"), "--to", str(pacs.address)])
        assert shown.exit_code == 1


def test_check_says_one_line_each_and_its_exit_code(tmp_path: Path) -> None:
    with Recorder(tmp_path / "pacs") as pacs:
        there = {"name": "there", "address": str(pacs.address)}
        gone = {"name": "gone", "address": "GONE@127.0.0.1:1"}
        listen = {"port": 0}
        good = RUNNER.invoke(
            app, ["check", "--json", "-c", str(write_config(tmp_path, destinations=[there], listen=listen))]
        )
        both = write_config(tmp_path, destinations=[there, gone], listen=listen)
        bad = RUNNER.invoke(app, ["check", "--json", "-c", str(both)])
    lines = [json.loads(line) for line in good.output.splitlines()]
    assert good.exit_code == 0, good.output
    subjects = [line["subject"] for line in lines]
    assert subjects.count("transfer syntax") >= 10
    assert {"configuration", "weights", "spool", "destination there"} <= set(subjects)
    assert bad.exit_code == 1, "an archive that is down is no fault of the configuration"
    failed = [line["subject"] for line in map(json.loads, bad.output.splitlines()) if not line["ok"]]
    assert failed == ["destination gone"]


def test_a_removed_destination_is_named_by_check_and_status(tmp_path: Path) -> None:
    before = workplace.config(tmp_path / "spool", peers.nobody())
    workplace.receive(before, 1)
    ledger = Ledger.open(before.spool.path)
    workplace.worker(before, ledger).do_one()
    ledger.close()
    with Recorder(tmp_path / "pacs") as pacs:
        there = {"name": "there", "address": str(pacs.address)}
        file = write_config(tmp_path, destinations=[there], listen={"port": 0}, spool={"path": str(before.spool.path)})
        checked = RUNNER.invoke(app, ["check", "--json", "-c", str(file)])
    (line,) = [line for line in map(json.loads, checked.output.splitlines()) if line["subject"] == "destination pacs0"]
    assert line["warning"]
    assert "3 deliveries wait for it" in line["sentence"]
    assert "not configured" in RUNNER.invoke(app, ["status", "-c", str(file)]).output


def test_retry_asks_again_for_the_commitment_to_what_was_delivered(tmp_path: Path) -> None:
    asked = {"name": "pacs", "address": "PACS@127.0.0.1:104", "report_per": "image", "commitment_wait_h": 24}
    settings = workplace.config(tmp_path / "spool", destinations=[asked])
    workplace.receive(settings, 1)
    ledger = Ledger.open(settings.spool.path)
    workplace.worker(settings, ledger).do_one()
    while job := ledger.claim_delivery("pacs", "me", 60.0):
        assert ledger.settle_delivered(job, 0x0000)  # by an older version, or before it was configured
    assert commitments.next_s(ledger, "pacs") is None
    file = write_config(tmp_path, destinations=[asked], spool={"path": str(settings.spool.path)})
    again = RUNNER.invoke(app, ["retry", "1.2.1.1.1", "-c", str(file)])
    assert again.exit_code == 0
    assert "commitment of 3 delivered objects is asked for again" in again.output
    assert commitments.next_s(ledger, "pacs") is not None
    nothing = RUNNER.invoke(app, ["retry", "1.2.1.1.1", "-c", str(file)])
    assert nothing.exit_code == 2
    ledger.close()


@pytest.mark.whole
def test_a_role_imports_what_it_needs_to_begin(tmp_path: Path) -> None:
    """A crash of a codec must not close the port to the PACS; torch costs 276 MiB and a second.

    The libraries that a worker may need later, of a tenth of a second and more, come with what needs them.
    """
    names = ("torch", "scipy", "fpdf", "highdicom", "pydicom.sr", "openvino.tools", "gdcm", "numpy", "PIL")
    program = (
        "import sys, signal, os\n"
        "def tell(*_):\n"
        f"    print(*(name for name in {names} if sys.modules.get(name)), flush=True)\n"
        "    os._exit(0)\n"
        "from cxr_node.node.process import supervisor\n"
        "progress = supervisor.Notifier.progress\n"
        "def at_work(self):\n"
        "    progress(self)\n"
        "    if self._is_ready: os.kill(os.getpid(), signal.SIGTERM)\n"
        "supervisor.Notifier.progress = at_work\n"
        "from cxr_node.cli.node import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "tell()\n"
    )
    words = [sys.executable, "-c", program]
    config = ["--config", str(write_config(tmp_path, listen={"port": 0}))]
    roles = {
        role: subprocess.Popen([*words, role, *config], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for role in ("receive", "work", "deliver", "status", "check")
    }
    said = {role: process.communicate(timeout=240)[0].split("\n")[-2].split() for role, process in roles.items()}
    assert not any("torch" in imported for imported in said.values())
    assert (said["receive"], said["deliver"]) == ([], [])
    assert said["work"] == ["gdcm", "numpy", "PIL"]
    assert "numpy" in said["check"], "what is imported is seen"
