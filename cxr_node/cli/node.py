"""The command line: thin. A room is imported only when its command needs it (torch costs a second)."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node import process_setup, wiring
from cxr_node.cli import agreement, assurance, bench, candidate, ledger, operate, shadow, tables, training, web
from cxr_node.cli.app import (
    DEFAULT_CONFIG,
    EX_CONFIG,
    AsJson,
    ConfigFile,
    Urgency,
    app,
    begin_serving,
    command,
    config_of,
    err,
    load_config,
    out,
    say_json,
)
from cxr_node.errors import ConfigError, DataError, ResourceError

if TYPE_CHECKING:
    from cxr_node.config.network import Address
    from cxr_node.config.schema import Config
    from cxr_node.domain import Origin, Precedent
    from cxr_node.outcome import Outcome


@command()
def rebuild(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check the ledger, set it aside if it is damaged or too old, and receive again what only the spool has."""
    from cxr_node.dicom.read import header
    from cxr_node.node.ledger.database import UnreleasedLedgerError, utc_now
    from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
    from cxr_node.node.ledger.sqlite_file import set_aside
    from cxr_node.node.receive import recovery
    from cxr_node.node.spool.opening import open_spool

    settings = load_config(config)
    path = settings.spool.path
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no spool yet; has the node run with this configuration?")
    try:
        ledger = Ledger.of_node(settings, repair=True)
    except UnreleasedLedgerError:
        set_aside(path / FILE_NAME, utc_now(), "unreleased")
        ledger = Ledger.of_node(settings)
    try:
        found = recovery.rebuild(ledger, open_spool(settings.spool), header.identify)
    finally:
        ledger.close()
    out.print(f"{found.objects} objects in the spool, {found.received} of them received again")
    if found.received:
        err.print("of these none is set aside; where the ledger is new, no destination is held (`cxr-node hold`)")
    if found.unreadable:
        raise ResourceError(f"{found.unreadable} objects are damaged beyond their header: send those images again")


@command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="Result objects, with their sources or without; files, folders.")],
    as_json: AsJson = False,
) -> None:
    """Check result objects by our own rules, and let highdicom read every SR and SEG; exit 0 if there are no flaws.

    What the verdict is about (pneumonia or another finding) is read from the objects themselves.
    """
    from cxr_node.dicom.verify import check, second_reader
    from cxr_node.dicom.verify.rules import Flaw

    unread: list[Flaw] = []

    def read_twice() -> Iterator[tuple[str, bytes]]:
        for name, content in _contents(paths):
            unread.extend(second_reader.flaws(name, content))
            yield name, content

    checked = check.check_files(read_twice())
    flaws = (*checked.flaws, *unread)
    for flaw in flaws:
        if as_json:
            say_json({"file": flaw.document, "code": flaw.rule.value, "sentence": flaw.sentence, "where": flaw.where})
        else:
            out.print(str(flaw), markup=False)
    for name in checked.ignored:
        err.print(f"{name}: neither one of our results nor a radiograph; not checked", markup=False)
    if not checked.results and not flaws:
        raise DataError("none of these files is one of our results")
    if not as_json:
        out.print(f"{checked.results} results, {checked.sources} sources, {len(flaws)} flaws")
    raise typer.Exit(1 if flaws else 0)


def _contents(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    from cxr_node.tools import classify

    for file in classify.files(paths):
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error


__all__ = ["agreement", "app", "assurance", "bench", "candidate", "ledger", "operate", "shadow", "training", "web"]


def _address(text: str) -> Address:
    from pydantic import ValidationError

    from cxr_node.config.network import Address

    try:
        return Address.model_validate(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r}: write AE@host:port, for example CXR_NODE@127.0.0.1:11112") from error


@command()
def serve(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the whole node: receive, work, deliver and, where configured, web as supervised processes."""
    from cxr_node.node.process import logs, supervisor

    with supervisor.held():
        settings = load_config(config)
        wiring.profiles(settings)
    hangup, hurry = threading.Event(), threading.Event()
    stop = supervisor.stop_event(on_hangup=logs.on_hangup(hangup.set), hurry=hurry)
    begin_serving(settings, "serve")
    start = (sys.executable, "-m", "cxr_node")
    roles = ["receive", "work", "deliver"]  # in the order of their stop
    if settings.web is not None:
        roles.append("web")
    commands = [
        supervisor.Command(
            name=role,
            argv=(*start, role, "--config", str(config)),
            grace_s=supervisor.GRACE_S + (settings.listen.drain_s if role == "receive" else 0),
            is_vital=role != "web",
            start_s=supervisor.START_S,
        )
        for role in roles
    ]
    raise typer.Exit(supervisor.supervise(commands, stop, hangup=hangup, hurry=hurry))


@command()
def receive(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the Storage SCP alone (as its systemd unit does)."""
    from cxr_node.dicom.pixels import probe
    from cxr_node.node.process import supervisor

    with supervisor.held():
        settings = load_config(config)
    hurry = threading.Event()
    stop = supervisor.stop_event(hurry=hurry)
    begin_serving(settings, "receive")
    process_setup.share_one_heap()
    offered = probe.Question()
    probe.leave_out()
    from cxr_node.dicom.read import header
    from cxr_node.node.audit import recorder
    from cxr_node.node.receive import server

    notifier = supervisor.Presence(settings.spool.path, "receive")

    def ready(_port: int) -> None:
        process_setup.keep_what_started()
        notifier.ready()

    with notifier, recorder.recording(settings, "receive") as record:
        hooks = server.Hooks(
            stop=stop, ready=ready, progress=notifier.progress, audit=record, stopping=notifier.stopping, hurry=hurry
        )
        server.serve(settings, header.identify, offered.answer(), hooks)


@command()
def work(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run one worker alone: leases received instances, judges them, stores the results."""
    from cxr_node.node.process import supervisor

    with supervisor.held():
        settings = load_config(config)
    stop = supervisor.stop_event()  # before the libraries of the next lines start threads
    begin_serving(settings, "work")  # and before they can hang: where they do is said to the journal then
    from cxr_node import pipeline, study_pipeline
    from cxr_node.dicom.pixels import compress
    from cxr_node.model.runtime import Company
    from cxr_node.node.audit import recorder
    from cxr_node.node.process import metrics
    from cxr_node.node.work import worker

    def load() -> worker.Analyser:
        live, beside = settings, None
        if settings.model.candidate is not None:  # which one is live stands in the ledger
            with contextlib.closing(wiring.ledger(settings)) as opened:
                live = wiring.with_live_profile(settings, opened)
                beside = candidate.beside(live, opened)
        company = Company()
        classifier = wiring.classifier(live, company)

        def process(content: bytes, origin: Origin, config: Config, precedent: Precedent) -> Outcome:
            with company:
                return pipeline.process(content, origin, classifier, config, precedent, metrics.stage)

        return worker.Analyser(
            process=process,
            report=study_pipeline.report_study,
            prior=lambda content, current, config: pipeline.judge_prior(content, current, classifier, config),
            batch=classifier.batch,
            encoder=compress.Encoder(),
            candidate=beside,
            agreed_sha256=wiring.agreed_sha256(settings),
            rules_sha256=pipeline.rules_sha256(classifier, settings),
        )

    with supervisor.Presence(settings.spool.path, "work") as notifier, recorder.recording(settings, "work"):
        worker.run(settings, load, stop, notifier)


@command()
def deliver(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run delivery alone: sends results and audit messages, and deletes what has been kept long enough."""
    from cxr_node.dicom.pixels import probe
    from cxr_node.node.process import supervisor

    with supervisor.held():
        settings = load_config(config)
    stop = supervisor.stop_event()
    begin_serving(settings, "deliver")
    offered = probe.Question() if settings.priors is not None or settings.worklists else None
    probe.leave_out()
    from cxr_node.cli import fetching
    from cxr_node.dicom.pixels.compress import Press
    from cxr_node.node.audit import recorder
    from cxr_node.node.deliver import courier
    from cxr_node.node.deliver.fetching import NOTHING_FETCHED

    tools = NOTHING_FETCHED if offered is None else fetching.tools(offered.answer())
    present = supervisor.Presence(settings.spool.path, "deliver")
    with present, recorder.forwarding(settings), recorder.recording(settings, "deliver") as record:
        courier.run(settings, stop, present, audit=record, compressor=Press(), fetching=tools)


@command()
def demo(
    paths: Annotated[list[Path] | None, typer.Argument(help="Radiographs; without any, built-in ones.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for what came back.")] = Path("cxr-demo"),
    page: Annotated[bool, typer.Option("--web", help="Then show the node's page, until Ctrl-C.")] = False,
    browser: Annotated[bool, typer.Option(help="With --web: open the page in the browser.")] = True,
) -> None:
    """Show the main job on real DICOM associations: a node and a small recording PACS on loopback."""
    from cxr_node import demo

    def show(rows: list[demo.StudyRow]) -> None:
        out.print(tables.demo_table(rows))
        out.print(f"Open {out_dir / 'index.html'}. Research use only.")

    def visit(rows: list[demo.StudyRow], address: str) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            show(rows)
            out.print(f"The node runs on. Try your own files: {address} (Ctrl-C ends it)")
            if browser:
                webbrowser.open(address)
            signal.pause()

    rows = demo.run(paths or [], out_dir, err, visit if page else None)
    if not page:
        show(rows)


@command()
def check(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
    send_test_alert: Annotated[
        bool, typer.Option("--send-test-alert", help="Send a message by each way of alerts.to.")
    ] = False,
) -> None:
    """Check configuration, secrets, weights, spool, port, destinations and alerts: one line each.

    Exit 78 if the configuration or a file that it names is wrong, 1 for anything else (an archive is down).
    """
    from cxr_node.diagnose import check
    from cxr_node.diagnose.thresholds import Fault
    from cxr_node.web import server
    from cxr_node.web.monitoring import announce

    faults, settings = set(), load_config(config)
    page = chain(server.readings(settings), announce.readings(settings, test=send_test_alert))
    for reading in chain(check.check(settings, str(config)), page):
        if not reading.ok:
            faults.add(reading.fault)
        if as_json:
            say_json(check.as_json(reading))
        else:
            out.print(tables.check_line(reading))
    raise typer.Exit(EX_CONFIG if Fault.FILE in faults else 1 if faults else 0)


@command()
def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="CXR_NODE_CONFIG", help="For its spool.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine (disk, clock, decoders, limits, memory) and say what to change."""
    from cxr_node.diagnose import doctor

    readings = []
    for reading in doctor.examine(load_config(config) if config else None):
        readings.append(reading)
        if as_json:
            say_json(reading.as_json())
    if not as_json:
        out.print(tables.doctor_table(readings), tables.doctor_line(readings))
    raise typer.Exit(1 if doctor.stops(readings) else 0)


@command()
def conformance(
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; default: stdout.")] = None,
) -> None:
    """Write the DICOM conformance statement and the IHE integration statement, from the code's own tables."""
    from cxr_node.conformance import statement

    written = statement.write()
    if out_file is None:
        print(written, end="")
    else:
        out_file.write_text(written, "utf-8")


@command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, PNG or JPEG pictures, or folders.")],
    to: Annotated[str, typer.Option("--to", help="AE@host:port of a Storage SCP.")],
    calling: Annotated[str, typer.Option(help="Calling AE title.")] = "CXR_SEND",
    priority: Annotated[Urgency, typer.Option(help="C-STORE Priority; low is handled last.")] = Urgency.MEDIUM,
) -> None:
    """C-STORE files; a PNG or JPEG is wrapped as a DX image first."""
    from cxr_node.domain import Priority
    from cxr_node.tools import classify, send

    address = _address(to)
    with tempfile.TemporaryDirectory(prefix="cxr-node-send-") as scratch:
        files = classify.dicom_files(classify.files(paths), Path(scratch))
        store = functools.partial(send.store, address=address, calling_ae_title=calling)
        failures = tables.sending(files, functools.partial(store, priority=Priority[priority.name]))
    raise typer.Exit(1 if failures else 0)


@command(name="classify")
def classify_files(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, PNG or JPEG pictures, or folders.")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write the result objects here.")] = None,
    profile: Annotated[str, typer.Option(help="Built-in profile or profile folder.")] = "pneumonia-pediatric",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Rules of this configuration.")] = None,
    study: Annotated[
        bool, typer.Option("--study", help="One answer for each study, as the node sends it; no earlier radiographs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge files without a network, each alone or each study as a whole: a table, or one JSON object a line."""
    from cxr_node.tools import classify

    default = config_of({"spool": {"path": "."}, "model": {"profile": profile}})
    settings = load_config(config) if config else default
    files = classify.files(paths)
    judged = _judge_studies if study else _judge_files
    judged(files, settings, out_dir, as_json)


def _judge_files(files: list[Path], settings: Config, out_dir: Path | None, as_json: bool) -> None:
    from cxr_node.tools import classify
    from cxr_node.tools.classify import ResultFiles

    classifier = wiring.on_demand(settings, for_one=len(files) == 1)
    count, objects = classify.processes(len(files)), out_dir is not None
    if count > 1:
        one_thread = settings.model_copy(update={"model": settings.model.model_copy(update={"threads": 1})})
        make = functools.partial(wiring.on_demand, one_thread)
        answers = classify.judge_apart(files, make, settings, objects=objects, count=count)
    else:
        answers = classify.judge(files, classifier, settings, objects=objects)
    results = ResultFiles(out_dir, files) if out_dir is not None else None
    kept = []
    for answer in tables.progress(answers, len(files), "judging", quiet=as_json):
        written = results.write(answer.path, answer.sop_instance_uid, answer.artifacts) if results else []
        if as_json:
            named = {"objects": [file.name for file in written]} if results else {}
            say_json(answer.as_json(classifier.profile.name) | named)
            continue
        kept.append(answer)
        if written and not written[0].name.startswith(f"{answer.path.stem}."):
            err.print(f"{answer.path}: its results are {written[0].name} and others next to it", markup=False)
    if not as_json:
        out.print(tables.classify_table(kept))


def _judge_studies(files: list[Path], settings: Config, out_dir: Path | None, as_json: bool) -> None:
    from cxr_node.tools import classify_study
    from cxr_node.tools.classify import ResultFiles

    found = classify_study.group(files)
    classifier = wiring.on_demand(settings)
    answers = classify_study.judge(found, classifier, settings, objects=out_dir is not None)
    studies = [Path(each.study_instance_uid) for each in found if each.study_instance_uid is not None]
    results = ResultFiles(out_dir, [*files, *studies]) if out_dir is not None else None
    kept = []
    for answer in tables.progress(answers, len(found), "judging", quiet=as_json):
        written = answer.write(results) if results else []
        if as_json:
            named = {"objects": [file.name for file in written]} if results else {}
            say_json(answer.as_json(classifier.profile.name) | named)
        kept.append(answer)
    if not as_json:
        out.print(tables.study_table(kept))
