"""A node and a small recording PACS on loopback, real associations, and a folder that a person can open.

The node is the one that hospitals would run: `cxr-node serve`, as processes of its own, on a configuration
file that differs from a real one in its ports and paths only.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from cxr_node import classify, page
from cxr_node.config import Address, Admission
from cxr_node.dicom import header, pixels, readable
from cxr_node.domain import Rejected, ResultKind
from cxr_node.drawn import BUILT_IN, BUILT_IN_ATTRIBUTES
from cxr_node.errors import CxrNodeError, DeliveryError, InstanceError
from cxr_node.node import history, send, wakeup
from cxr_node.node.history import Story
from cxr_node.node.jobs import DeliveryState, InstanceState
from cxr_node.node.ledger import Ledger
from cxr_node.node.recorder import Recorder

AE_TITLE = "CXR_NODE"
START_S = 60.0
ANSWER_S = 120.0
"""For one radiograph; the first one waits for the weights to be loaded."""


class DemoError(CxrNodeError):
    """The demo did not come to its end; says what the node said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of one radiograph."""

    name: str
    folder: Path
    verdict: str
    reason: str | None
    sentence: str | None
    probability: float | None
    turnaround_ms: float | None
    """From the instance's durable receipt to the last result acknowledged by the PACS."""
    objects: tuple[str, ...]
    """Files of the result objects that the PACS acknowledged."""

    def has(self, name: str) -> bool:
        """True where the row's folder holds such a file."""
        return (self.folder / name).is_file()


def run(paths: Sequence[Path], out: Path, console: Console) -> list[Row]:
    """Send radiographs through a node and write what came back.

    Raises
    ------
    DemoError : the node did not start, or not every radiograph was settled in time.
    DataError : a path does not exist.
    """
    images = classify.files(paths) if paths else sorted(BUILT_IN.glob("*.jp*g"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cxr-node-demo-") as scratch:
        work = Path(scratch)
        sources = _part10_files(images, work / "sent", console)
        console.print("starting the node")
        with (
            Recorder(work / "arrived", "DEMO_PACS") as pacs,
            _node(work, pacs.address) as node,
            Progress(console=console, transient=True) as bar,
        ):
            bar.console.print(f"node {node} and PACS {pacs.address} listen on loopback")
            _send(list(sources.values()), node, bar)
            stories = _settled(work, set(sources), bar)
        rows = [_unpack(source, stories[uid], pacs, out) for uid, source in sources.items()]
    page.write(out / "index.html", rows)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    name: str
    image: Path
    part10: Path


def _part10_files(images: Sequence[Path], folder: Path, console: Console) -> dict[str, _Source]:
    """Every image as a Part 10 file, by SOP Instance UID; what is no image is said and left out."""
    folder.mkdir()
    sources: dict[str, _Source] = {}
    for number, image in enumerate(images, 1):
        file = folder / f"{number:04d}.dcm"
        attributes = BUILT_IN_ATTRIBUTES if image.parent == BUILT_IN else {}
        try:
            file.write_bytes(classify.part10(image, **attributes))
            uid = header.inspect(file).ref.sop_instance_uid
            sources[uid] = _Source(name=f"{number:02d}-{image.stem}", image=image, part10=file)
        except (InstanceError, OSError) as error:
            console.print(f"{image}: not sent: {error}", style="yellow", markup=False)
    if not sources:
        raise DemoError("there is no image to send")
    return sources


@contextlib.contextmanager
def _node(work: Path, pacs: Address) -> Iterator[Address]:
    """Run `cxr-node serve` until the block ends."""
    node = Address(ae_title=AE_TITLE, host="127.0.0.1", port=send.free_port("127.0.0.1"))
    configuration = {
        "listen": {"ae_title": node.ae_title, "host": node.host, "port": node.port},
        "spool": {"path": str(work / "spool"), "min_free_mib": 64},
        "destinations": [{"name": "demo", "address": str(pacs)}],
    }
    file, log = work / "node.yaml", work / "node.log"
    file.write_text(yaml.safe_dump(configuration))
    with log.open("wb") as lines:
        command = [sys.executable, "-m", "cxr_node", "serve", "--config", str(file)]
        process = subprocess.Popen(command, stdout=lines, stderr=lines)
    try:
        _listening(process, node, work / "spool", log)
        yield node
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], node: Address, spool: Path, log: Path) -> None:
    """Wait until the port answers and the worker has its weights: the times shown are of a node at work."""
    deadline = time.monotonic() + START_S
    while not (wakeup.listens(spool, wakeup.Role.WORK) and _answers(node)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"the node did not start; its last words:\n{_last_words(log)}")
        time.sleep(0.1)


def _answers(node: Address) -> bool:
    try:
        send.echo(node, "CXR_DEMO")
    except DeliveryError:
        return False
    return True


def _send(sources: Sequence[_Source], node: Address, bar: Progress) -> None:
    task = bar.add_task("sending", total=len(sources))

    def arrived(sent: send.Sent) -> None:
        bar.advance(task)
        if not sent.ok:
            raise DemoError(f"the node refused {sent.path.name}: {sent.sentence}")

    send.store([source.part10 for source in sources], arrived, node, "CXR_DEMO")


def _settled(work: Path, uids: set[str], bar: Progress) -> dict[str, Story]:
    """Wait until every instance is DELIVERED, REJECTED or DEAD, and tell their stories."""
    task = bar.add_task("judging, explaining, delivering", total=len(uids))
    ledger = Ledger.open(work / "spool")
    deadline = time.monotonic() + ANSWER_S + len(uids)
    open_states = (InstanceState.RECEIVED, InstanceState.REPORTED)
    try:
        while True:
            counts = history.counts(ledger)
            waiting = sum(counts[state] for state in open_states)
            bar.update(task, completed=len(uids) - waiting)
            if not waiting:
                return {uid: history.trace(ledger, uid)[0] for uid in uids}
            if time.monotonic() > deadline:
                words = _last_words(work / "node.log")
                raise DemoError(f"{waiting} radiographs are not settled in time; the node's last words:\n{words}")
            time.sleep(0.05)
    finally:
        ledger.close()


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])


def _unpack(source: _Source, story: Story, pacs: Recorder, out: Path) -> Row:
    """Put one radiograph and its results where a person finds them."""
    folder = out / source.name
    folder.mkdir(exist_ok=True)
    shutil.copy(source.part10, folder / "source.dcm")
    _write_picture(source.part10, folder / "source.png")
    delivered = [one for one in story.deliveries if one.state is DeliveryState.DELIVERED]
    for one in delivered:
        content = pacs.path(one.sop_instance_uid).read_bytes()
        (folder / f"{one.kind}.dcm").write_bytes(content)
        if one.kind == ResultKind.HEATMAP:
            (folder / "heatmap.png").write_bytes(readable.picture_png(content))
        if one.kind == ResultKind.REPORT:
            page.report(folder / "report.html", readable.report_html(content), source.name)
    times = [one.delivered_at for one in delivered if one.delivered_at is not None]
    took_ms = (max(times) - story.instance.received_at).total_seconds() * 1000 if times else None
    return Row(
        name=source.name,
        folder=folder,
        verdict=story.instance.verdict or story.instance.state,
        reason=story.instance.reason or story.instance.doubt,
        sentence=story.instance.sentence,
        probability=story.instance.probability,
        turnaround_ms=took_ms,
        objects=tuple(f"{one.kind}.dcm" for one in delivered),
    )


def _write_picture(part10: Path, path: Path) -> None:
    """Write what was sent as a PNG; a file that cannot be shown is left out."""
    source = header.read(part10.read_bytes())
    if isinstance(source, Rejected):
        return
    with contextlib.suppress(InstanceError):
        shown = pixels.decode(source, Admission()).pixels
        Image.fromarray((shown * 255.0).round().astype("uint8")).save(path)
