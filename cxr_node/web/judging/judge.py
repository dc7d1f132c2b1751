"""The child of `judging`: it holds the network, and judges one file after the other by the node's own path.

Knows no HTTP. It ends with its parent, and takes no more memory than it is allowed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cxr_node import pipeline, process_setup, wiring
from cxr_node.config.schema import Config, NormalHeatmap
from cxr_node.dicom import from_picture
from cxr_node.dicom.render import html
from cxr_node.dicom.words import rounding, wording
from cxr_node.domain import PNEUMONIA, Origin, Reason, Verdict
from cxr_node.errors import ConfigError, CxrNodeError, InstanceError, ModelError, ResourceError
from cxr_node.node.process import logs
from cxr_node.outcome import Artifact, Rejected
from cxr_node.pipeline import Analysis, Classifier
from cxr_node.result_kinds import ResultKind
from cxr_node.tools import classify
from cxr_node.tools.drawn import BUILT_IN_ATTRIBUTES
from cxr_node.web.judging import frames
from cxr_node.web.judging.frames import Wanted

log = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 3 * 1024**3
"""Writable memory (RLIMIT_DATA): 0.5 GB with the network loaded, 1.1 GB for the 100 million pixels of
`admission.max_pixels` (measured); the rest is for the stacks of many cores."""
_MAX_RESULT_BYTES = 64 * 1024 * 1024
"""Of one file's result objects: the picture has at most 4096 x 4096 pixels of three bytes."""
_SHOWN_PX = 1024
_LIKELY_VICTIM = "500"
"""For the kernel's choice when memory is short (proc_pid_oom_score_adj(5)): this before receive, work and deliver."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KINDS = {
    Wanted.HEATMAP: frozenset({ResultKind.HEATMAP}),
    Wanted.ALL: frozenset({ResultKind.REPORT, ResultKind.MEASUREMENTS, ResultKind.HEATMAP, ResultKind.PDF}),
}
_LAST_FAULTS = frozenset({"memory", "model"})
"""After these the process is not to be trusted with another file."""
_UNREADABLE = frozenset({Reason.UNREADABLE_HEADER, Reason.UNREADABLE_PIXELS})


def serve(line: socket.socket) -> None:
    """Load the network, then answer until the parent goes or a fault leaves this process unfit."""
    said, _ = frames.receive(line)
    config = Config.model_validate(said["config"])
    try:
        classifier = wiring.classifier(_live(config))
    except (ConfigError, ModelError) as error:
        frames.send(line, {"fault": "model", "detail": str(error)})
        return
    frames.send(line, {"ready": True})
    while True:
        said, files = frames.receive(line)
        with contextlib.ExitStack() as opened:
            modes = zip(files, ("rb", "wb"), strict=False)
            held = [opened.enter_context(os.fdopen(file, mode, buffering=0)) for file, mode in modes]
            found = _answered(said, held, classifier, config)
        frames.send(line, found)
        if found.get("fault") in _LAST_FAULTS:
            return


def _live(config: Config) -> Config:
    """As the node answers now, where it has run."""
    if config.model.candidate is None:
        return config
    with contextlib.suppress(ConfigError, ResourceError), contextlib.closing(wiring.ledger(config)) as ledger:
        return wiring.with_live_profile(config, ledger)
    return config


def _answered(said: dict[str, Any], files: list[Any], classifier: Classifier, config: Config) -> dict[str, Any]:
    """Judge one file, or say what stood in the way: a code for programs and a sentence without the file's content."""
    try:
        return _judged(said, files, classifier, config)
    except MemoryError:
        return {"fault": "memory", "detail": "judging this file takes more memory than it may have"}
    except ModelError as error:
        return {"fault": "model", "detail": str(error)}
    except OSError as error:
        return {"fault": "machine", "detail": f"the result cannot be kept for a moment ({error.strerror})"}
    except CxrNodeError as error:
        log.error("a file could not be answered: %s", error)
        return {"fault": "result", "detail": "what was made of this file breaks the node's own rules"}
    except Exception:
        log.exception("a file could not be judged")
        return {"fault": "fault", "detail": "a fault of this program; its log has the place in the code"}


def _judged(said: dict[str, Any], files: list[Any], classifier: Classifier, config: Config) -> dict[str, Any]:
    source, *target = files
    source.seek(0)
    judged = _analysed(source.read(), said, classifier, config)
    artifacts: tuple[Artifact, ...] = ()
    wanted = Wanted(said["wanted"])
    if wanted is not Wanted.NOTHING and not isinstance(judged, Rejected):
        artifacts = _explained(judged, config, _KINDS[wanted])
    answer = classify.answer(Path(), judged, artifacts)
    found = answer.as_json(classifier.profile.name)
    del found["path"]
    return {
        "prediction": found,
        "shown": _shown(judged),
        "unreadable": isinstance(judged, Rejected) and judged.reason in _UNREADABLE,
        "parts": _written(target[0], judged, artifacts, wanted) if target else {},
    }


def _analysed(content: bytes, said: dict[str, Any], classifier: Classifier, config: Config) -> Analysis | Rejected:
    if said["picture"]:
        try:
            content = from_picture.wrapped(content, **(BUILT_IN_ATTRIBUTES if said["drawn"] else {}))
        except InstanceError as error:
            return Rejected(reason=Reason.UNREADABLE_PIXELS, sentence=str(error))
    return pipeline.judge(content, classifier, config)


def _explained(judged: Analysis, config: Config, kinds: frozenset[ResultKind]) -> tuple[Artifact, ...]:
    """Make objects that no archive can take for the node's own: the installation and with it every UID is another.

    Their content time is this moment, so the same file tried twice must not give other bytes under one UID. Whoever
    tries a file wants to see where the network looked, whatever the site sends of a NORMAL.
    """
    at = datetime.now(UTC)
    name = f"{config.results.installation_id[:32]} tried {at:%Y%m%dT%H%M%S.%f}"
    results = config.results.model_copy(update={"installation_id": name, "normal_heatmap": NormalHeatmap.MAP})
    origin = Origin(calling_ae_title="TRY", peer_host="localhost", received_at=at)
    return pipeline.explain(judged, origin, config.model_copy(update={"results": results}), kinds=kinds)


def _shown(judged: Analysis | Rejected) -> dict[str, Any]:
    """What people read, by the rules of `dicom.words`."""
    if isinstance(judged, Rejected):
        name = PNEUMONIA.name(Verdict.REJECTED)
        return {"name": name, "style": "REJECTED", "number": None, "thresholds": [], "sentence": judged.sentence}
    finding = judged.finding
    return {
        "name": finding.name,
        "style": finding.decision.verdict.name,
        "number": wording.certainty_line(finding) if rounding.is_stated(finding) else None,
        "thresholds": wording.threshold_labels(finding.identity.operating_point),
        "sentence": wording.summary(finding),
    }


def _written(
    target: BinaryIO, judged: Analysis | Rejected, artifacts: tuple[Artifact, ...], wanted: Wanted
) -> dict[str, list[int]]:
    """Write what can be looked at and downloaded; where each part begins, and its length."""
    places: dict[str, list[int]] = {}

    def write(name: str, content: bytes) -> None:
        places[name] = [target.tell(), len(content)]
        if target.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if not isinstance(judged, Rejected) and wanted is Wanted.ALL:
        write("radiograph.png", html.radiograph_png(judged.radiograph, _SHOWN_PX))
    for artifact in artifacts:
        write(f"{artifact.kind}.dcm", artifact.content)
        match artifact.kind:
            case ResultKind.HEATMAP:
                write("heatmap.png", html.picture_png(artifact.content))
            case ResultKind.REPORT:
                write("report.html", html.report_html(artifact.content).encode())
            case ResultKind.PDF:
                write("report.pdf", html.document_pdf(artifact.content))
    return places


def _confine(parent: int) -> None:
    """End with the parent (prctl(2)), leave stopping to it, and bound memory and files."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the line above
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_RESULT_BYTES, _MAX_RESULT_BYTES))
    process_setup.leave_no_core()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LIKELY_VICTIM)


def main(line_at: int, parent: int) -> None:
    """Run as the child: the number of the inherited socket, and who has to live."""
    _confine(parent)
    logs.configure()
    with socket.socket(fileno=line_at) as line, contextlib.suppress(EOFError, ConnectionError):
        serve(line)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
