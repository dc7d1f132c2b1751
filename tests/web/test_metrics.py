"""What a scrape shows: the ledger as it is, what processes counted, and everything else where one of them fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cxr_node.errors import LedgerLostError
from cxr_node.node.ledger import destination_health
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.web.monitoring.metrics import Exposition
from tests.node.certificates import Authority
from tests.web.ledgers import PACS, Node, node

Labels = tuple[tuple[str, str], ...]
COUNT = """
import sys
from pathlib import Path
from cxr_node.node.process import metrics
metrics.begin(Path(sys.argv[1]), "work")
metrics.received("XR1"), metrics.refused("host"), metrics.judged("adults", "UNCERTAIN", "views-disagree")
metrics.rejected("too-small"), metrics.attempted("pacs", "delivered"), metrics.turned_around(7.0)
metrics.too_late("pacs"), metrics.study_reported("PNEUMONIA", 16.5), metrics.study_reported("PNEUMONIA", None)
with metrics.stage("examine"), metrics.transaction(): pass
"""
PROCESSES_COUNT = {
    "cxr_node_instances_received_total",
    "cxr_node_associations_refused_total",
    "cxr_node_stage_seconds_count",
    "cxr_node_delivery_attempts_total",
    "cxr_node_results_late_total",
    "cxr_node_ledger_transaction_seconds_count",
    "cxr_node_verdicts_total",
    "cxr_node_rejections_total",
    "cxr_node_turnaround_seconds_count",
    "cxr_node_study_reports_total",
    "cxr_node_study_turnaround_seconds_count",
}


@pytest.fixture
def worked(tmp_path: Path) -> Iterator[Node]:
    shown = Authority(tmp_path, "hospital").issue("node", hosts=["127.0.0.1"])
    archive = {"name": PACS, "address": "PACS@127.0.0.1:4242", "commitment_wait_h": 24, "tls": shown.tls()}
    audit = {"syslog": {"host": "127.0.0.1", "tls": shown.tls()}}
    with node(tmp_path / "spool", destinations=[archive], audit=audit, listen={"tls": shown.tls()}) as made:
        yield made


def counted(spool: Path) -> None:
    """Let a process count, which ends then."""
    subprocess.run([sys.executable, "-c", COUNT, str(spool)], check=True, timeout=90)


def parsed(content: bytes) -> dict[tuple[str, Labels], float]:
    families = text_string_to_metric_families(content.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def scraped(made: Node) -> dict[tuple[str, Labels], float]:
    return parsed(Exposition(made.config, lambda: made.ledger).read())


def test_the_ledger_is_shown_as_it_is(worked: Node) -> None:
    worked.report("XR1")
    worked.deliver()
    worked.reject("XR2")
    worked.kill()
    worked.clock.forward(60)
    worked.report()
    worked.receive()
    destination_health.down(worked.ledger, PACS, 30.0, "no answer")
    worked.clock.forward(100)
    found = scraped(worked)
    states = {labels[0][1]: value for (name, labels), value in found.items() if name == "cxr_node_instances"}
    assert states == {
        "RECEIVED": 1,
        "REPORTED": 1,
        "DELIVERED": 1,
        "REJECTED": 1,
        "DEAD": 1,
        "SET_ASIDE": 0,
        "SHADOW": 0,
    }
    assert found["cxr_node_destination_live_ratio", (("destination", PACS),)] == 1
    assert found["cxr_node_oldest_waiting_seconds", (("stage", "work"),)] == 100
    assert found["cxr_node_oldest_waiting_seconds", (("stage", "deliver"),)] == 100
    assert found["cxr_node_destination_up", (("destination", PACS),)] == 0
    assert found["cxr_node_dead", (("reason", "fault"),)] == 1
    assert found["cxr_node_deliveries", (("destination", PACS), ("state", "DELIVERED"))] == 3
    assert found["cxr_node_last_received_timestamp_seconds", (("sender", "XR2"),)] == pytest.approx(
        worked.clock().timestamp() - 160
    )
    assert found["cxr_node_role_up", (("role", "receive"),)] == 0
    assert found["cxr_node_spool_watermark_bytes", ()] == 16 * 1024 * 1024
    assert found["cxr_node_scrape_errors", ()] == 0


def test_studies_are_counted_by_what_becomes_of_them(worked: Node) -> None:
    states = [(("state", state),) for state in ("WAITING", "FAILED")]
    worked.judge()
    worked.clock.forward(worked.config.study.max_wait_s)
    found = scraped(worked)
    assert [found["cxr_node_studies", state] for state in states] == [1, 0]
    assert found["cxr_node_oldest_waiting_seconds", (("stage", "study"),)] == 0
    worked.clock.forward(30)
    assert scraped(worked)["cxr_node_oldest_waiting_seconds", (("stage", "study"),)] == 30
    worked.fail()
    found = scraped(worked)
    assert [found["cxr_node_studies", state] for state in states] == [0, 1]
    assert found["cxr_node_oldest_waiting_seconds", (("stage", "study"),)] == 0


def test_profiles_and_certificates_are_named(worked: Node) -> None:
    found = scraped(worked)
    profiles = [dict(labels) for name, labels in found if name == "cxr_node_profile_info"]
    named = {(each["profile"], each["version"]) for each in profiles}
    assert named == {("pneumonia-pediatric", "3.1"), ("pneumonia-adult", "1.0")}
    assert all(len(each["weights"]) == 12 for each in profiles)
    name = "cxr_node_certificate_expiry_timestamp_seconds"
    roles = {labels[0][1] for found_name, labels in found if found_name == name}
    assert roles == {"listen", f"destination-{PACS}", "audit"}


def test_what_processes_counted_is_there_too(worked: Node) -> None:
    counted(worked.config.spool.path)
    found = scraped(worked)
    assert {name for name, _ in found} >= PROCESSES_COUNT
    doubt = (("cause", "views-disagree"), ("profile", "adults"), ("verdict", "UNCERTAIN"))
    assert found["cxr_node_verdicts_total", doubt] == 1
    assert found["cxr_node_turnaround_seconds_bucket", (("le", "5.0"),)] == 0
    assert found["cxr_node_turnaround_seconds_bucket", (("le", "10.0"),)] == 1
    assert found["cxr_node_study_reports_total", (("verdict", "PNEUMONIA"),)] == 2
    assert found["cxr_node_study_turnaround_seconds_bucket", (("le", "16.0"),)] == 0
    assert found["cxr_node_study_turnaround_seconds_count", ()] == 1


def test_a_ledger_that_fails_takes_nothing_else_with_it(worked: Node, caplog: pytest.LogCaptureFixture) -> None:
    def lost() -> Ledger:
        raise LedgerLostError("ledger: its file was removed or replaced")

    counted(worked.config.spool.path)
    exposition = Exposition(worked.config, lost)
    found = parsed(exposition.read())
    assert found["cxr_node_scrape_errors", ()] == 9
    assert found["cxr_node_rejections_total", (("reason", "too-small"),)] == 1
    assert ("cxr_node_spool_free_bytes", ()) in found
    caplog.clear()
    exposition.read()
    assert not caplog.records, "said once, not at every scrape"


def test_a_torn_counter_file_takes_nothing_else_with_it(worked: Node) -> None:
    counted(worked.config.spool.path)
    (worked.config.spool.path / "metrics" / "counter_work-0.db").write_bytes(b"\x7f")
    found = scraped(worked)
    assert found["cxr_node_scrape_errors", ()] == 1
    assert found["cxr_node_instances", (("state", "DEAD"),)] == 0


def test_promtool_finds_nothing_to_say(worked: Node) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: install the package prometheus")
    counted(worked.config.spool.path)
    worked.report()
    content = Exposition(worked.config, lambda: worked.ledger).read()
    done = subprocess.run([program, "check", "metrics"], input=content, capture_output=True, timeout=90)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_who_watches_needs_no_pixels_and_no_network(tmp_path: Path) -> None:
    """The process stays below 150 MB: numpy and pynetdicom alone would take half of that."""
    program = (
        "import sys\nfrom cxr_node.web.monitoring import alert_loop, metrics\n"
        "print(*{'numpy', 'pydicom', 'pynetdicom', 'apprise', 'scipy', 'prometheus_client'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.stdout == "prometheus_client\n", done.stderr
