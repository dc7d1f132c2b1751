"""A node and a small recording PACS on loopback, real associations, and a folder that a person can open.

The node is the one that hospitals would run, with the default configuration (`tools.trial_node`).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from cxr_node import resources, wiring
from cxr_node.config import loader
from cxr_node.config.schema import Admission
from cxr_node.dicom.pixels import pixels
from cxr_node.dicom.read import header
from cxr_node.dicom.render import html
from cxr_node.dicom.words import names, rounding
from cxr_node.domain import PNEUMONIA, Target, Verdict
from cxr_node.errors import DataError, InstanceError, ResourceError
from cxr_node.node.ledger.queries import Story
from cxr_node.node.ledger.states import DeliveryState
from cxr_node.outcome import Rejected
from cxr_node.result_kinds import OF_ONE_IMAGE, SHAPES, ResultKind
from cxr_node.tools import classify, send, trial_node
from cxr_node.tools.drawn import BUILT_IN, BUILT_IN_ATTRIBUTES
from cxr_node.tools.trial_node import Recorder

CALLING = "CXR_DEMO"
QUIET_S = 1.0
"""Of `study.quiet_s`: all radiographs are there at once, and nobody likes to wait."""
_PAGE_PORT = 8042
_ONE_STUDY = {
    f"{name}.jpg": {
        "StudyInstanceUID": "2.25.264338219087137165098154837416935227853",
        "PatientID": "PICTURE-of-a-study",
        "SeriesNumber": str(number),
    }
    for number, name in enumerate(("clear-1", "opacity-1"), 1)
}
"""Built-in radiographs that are one study."""
_MAX_NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """What became of one radiograph."""

    name: str
    source: str
    """File of the radiograph as a picture, and below that of its heat map; they may be missing."""
    heatmap: str
    state: str
    verdict: str | None
    """The word for programs; None where there is no verdict."""
    target: Target | None
    """What it is about; None where the image was not analysed."""
    reason: str | None
    sentence: str | None
    probability: float | None
    certainty: str | None
    """For people; None where none may be stated."""

    @property
    def said(self) -> str:
        """The verdict's name for people; the state where there is none."""
        return self.state if self.verdict is None else (self.target or PNEUMONIA).name(Verdict.of_word(self.verdict))

    @property
    def style(self) -> str:
        """Class of the verdict on the page."""
        return "" if self.verdict is None else Verdict.of_word(self.verdict).name

    @property
    def why(self) -> str:
        """The doubt in words; "" where there is none. A refusal has a sentence instead."""
        return "" if self.sentence else names.reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """What became of one study."""

    name: str
    folder: Path
    images: tuple[ImageRow, ...]
    turnaround_ms: float | None
    """From the durable receipt of its last image to the last result acknowledged by the PACS."""
    objects: tuple[str, ...]
    """Files of the result objects that the PACS acknowledged."""

    @property
    def verdict(self) -> Verdict:
        """The worst of its images; REJECTED where no report of it came."""
        if not self.has("report.dcm"):
            return Verdict.REJECTED
        found = (Verdict.of_word(each.verdict) for each in self.images if each.verdict is not None)
        return Verdict.worst(found)

    @property
    def target(self) -> Target | None:
        """What the verdict is about; None where no image was analysed."""
        return next((each.target for each in self.images if each.target is not None), None)

    @property
    def said(self) -> str:
        """The verdict's name for people."""
        return (self.target or PNEUMONIA).name(self.verdict)

    def has(self, name: str) -> bool:
        """True where the row's folder holds such a file."""
        return (self.folder / name).is_file()


def run(
    paths: Sequence[Path], out: Path, console: Console, visit: Callable[[list[StudyRow], str], None] | None = None
) -> list[StudyRow]:
    """Send radiographs through a node and write what came back.

    Parameters
    ----------
    visit : the node serves its page too, and runs until this returns, which is given what came back and the address

    Raises
    ------
    TrialError : the node did not start, or not every radiograph was settled in time.
    DataError : a path does not exist, or there is no image.
    """
    images = classify.files(paths) if paths else sorted(BUILT_IN.glob("*.jp*g"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cxr-node-demo-") as scratch:
        work = Path(scratch)
        sources = _part10_files(images, work / "sent", console)
        console.print("starting the node")
        web = {} if visit is None else {"web": {"port": _page_port(), "show_images": True}}
        with Recorder(work / "arrived", "DEMO_PACS") as pacs:
            settings = web | {
                "study": {"quiet_s": QUIET_S},
                "destinations": [{"name": "demo", "address": str(pacs.address), "heatmap_compression": "none"}],
            }
            with trial_node.node(work, settings, CALLING) as node:
                with Progress(console=console, transient=True) as bar:
                    bar.console.print(f"node {node.address} and PACS {pacs.address} listen on loopback")
                    _send(list(sources.values()), node, bar)
                    stories = _settled(node, sources, bar)
                if visit is None:
                    node.end()  # while what it sent is written out
                targets = wiring.targets(loader.load(node.folder / "node.yaml"))
                rows = _unpacked(sources, stories, pacs, out, targets)
                findings = " and ".join(dict.fromkeys(target.finding for target in targets.values()))
                page = resources.html_page("demo.html", rows=rows, findings=findings, quiet_s=QUIET_S)
                (out / "index.html").write_text(page, "utf-8")
                if visit is not None:
                    trial_node.await_page(node)
                    visit(rows, f"http://127.0.0.1:{web['web']['port']}/try")
    return rows


def _page_port() -> int:
    """The configuration's own port, or any where that is taken."""
    try:
        send.bind_for_a_moment("127.0.0.1", _PAGE_PORT)
    except ResourceError:
        return send.free_port("127.0.0.1")
    return _PAGE_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    name: str
    part10: Path
    study_instance_uid: str


def _part10_files(images: Sequence[Path], folder: Path, console: Console) -> dict[str, _Source]:
    """Every image as a Part 10 file, by SOP Instance UID; what is no image is said and left out."""
    folder.mkdir()
    sources: dict[str, _Source] = {}
    for number, image in enumerate(images, 1):
        file = folder / f"{number:04d}.dcm"
        attributes = BUILT_IN_ATTRIBUTES | _ONE_STUDY.get(image.name, {}) if image.parent == BUILT_IN else {}
        try:
            file.write_bytes(classify.part10(image, **attributes))
            ref = header.inspect(file).ref
            sources[ref.sop_instance_uid] = _Source(
                name=image.stem, part10=file, study_instance_uid=ref.study_instance_uid
            )
        except (InstanceError, OSError) as error:
            console.print(f"{image}: not sent: {error}", style="yellow", markup=False)
    if not sources:
        raise DataError("there is no image to send")
    return sources


def _send(sources: Sequence[_Source], node: trial_node.Node, bar: Progress) -> None:
    task = bar.add_task("sending", total=len(sources))
    trial_node.store(node, [source.part10 for source in sources], lambda _: bar.advance(task))


def _settled(node: trial_node.Node, uids: Collection[str], bar: Progress) -> dict[str, Story]:
    task = bar.add_task("judging, explaining, delivering", total=len(uids))
    return trial_node.settled(node, uids, lambda left: bar.update(task, completed=len(uids) - left), look_every_s=0.05)


def _unpacked(
    sources: Mapping[str, _Source],
    stories: Mapping[str, Story],
    pacs: Recorder,
    out: Path,
    targets: Mapping[str, Target],
) -> list[StudyRow]:
    studies: dict[str, list[tuple[_Source, Story]]] = {}
    for uid, source in sources.items():
        studies.setdefault(source.study_instance_uid, []).append((source, stories[uid]))
    return [_unpack(number, images, pacs, out, targets) for number, images in enumerate(studies.values(), 1)]


def _unpack(
    number: int, images: Sequence[tuple[_Source, Story]], pacs: Recorder, out: Path, targets: Mapping[str, Target]
) -> StudyRow:
    """Put one study and its results where a person finds them."""
    name = f"{number:02d}-{'-'.join(source.name for source, _ in images)}"[:_MAX_NAME_CHARACTERS]
    folder = out / name
    folder.mkdir(exist_ok=True)
    objects: dict[str, tuple[int, int]] = {}
    """Their order: by kind, then by image."""
    for place, (source, story) in enumerate(images, 1):
        shutil.copy(source.part10, folder / f"source-{place}.dcm")
        _write_picture(source.part10, folder / f"source-{place}.png")
        for one in (one for one in story.deliveries if one.state is DeliveryState.DELIVERED):
            its = f"{one.kind}-{place}" if one.kind in OF_ONE_IMAGE else one.kind
            objects[f"{its}.dcm"] = SHAPES[ResultKind(one.kind)].series_number, place
            _write_result(pacs.path(one.sop_instance_uid).read_bytes(), one.kind, folder / its)
    return StudyRow(
        name=name,
        folder=folder,
        images=tuple(_image_row(source, place, story, targets) for place, (source, story) in enumerate(images, 1)),
        turnaround_ms=trial_node.turnaround_ms(*(story for _, story in images)),
        objects=tuple(sorted(objects, key=lambda each: objects[each])),
    )


def _write_result(content: bytes, kind: str, path: Path) -> None:
    """Write an object as it came, and as a page or a picture; `path` has no suffix yet."""
    path.with_name(f"{path.name}.dcm").write_bytes(content)
    if kind == ResultKind.HEATMAP:
        path.with_name(f"{path.name}.png").write_bytes(html.picture_png(content))
    if kind == ResultKind.REPORT:
        page = resources.html_page("report.html", fragment=html.report_html(content), title=path.parent.name)
        path.with_name(f"{path.name}.html").write_text(page, "utf-8")


def _image_row(source: _Source, place: int, story: Story, targets: Mapping[str, Target]) -> ImageRow:
    return ImageRow(
        name=source.name,
        source=f"source-{place}.png",
        heatmap=f"{ResultKind.HEATMAP}-{place}.png",
        state=story.instance.state,
        verdict=story.instance.verdict,
        target=targets.get((story.instance.profile or "").rpartition(" ")[0]),
        reason=story.instance.reason or story.instance.abstain_reason,
        sentence=story.instance.sentence,
        probability=story.instance.probability,
        certainty=rounding.beside(story.instance.verdict, story.instance.probability),
    )


def _write_picture(part10: Path, path: Path) -> None:
    """Write what was sent as a PNG; a file that cannot be shown is left out."""
    source = header.read(part10.read_bytes())
    if isinstance(source, Rejected):
        return
    with contextlib.suppress(InstanceError):
        shown = pixels.decode(source, Admission()).pixels
        Image.fromarray((shown * 255.0).round().astype("uint8")).save(path, compress_level=1)
