"""Two profiles side by side, and which of them is live; registered by `cli`."""

from __future__ import annotations

import csv
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node import times, wiring
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, load_config, out, say_json
from cxr_node.cli.ledger import Until, moment_since, opened, parsed
from cxr_node.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cxr_node.assurance.side_by_side import Figures, Judged
    from cxr_node.config.schema import Config
    from cxr_node.node.ledger.candidates import Compared
    from cxr_node.node.ledger.ledger import Ledger
    from cxr_node.node.work.beside import Candidate

_WORDS = {"present": True, "absent": False}


def beside(live: Config, ledger: Ledger) -> Candidate | None:
    """The candidate, whose network is loaded with its first film; one that cannot be used costs nobody an answer."""
    from cxr_node import pipeline
    from cxr_node.node.ledger import promotions
    from cxr_node.node.work.beside import Candidate

    try:
        profile = wiring.candidate(live)
    except ConfigError as error:
        logging.getLogger(__name__).error("candidate not used: %s", error)
        return None
    if profile is None:
        return None
    predictor = functools.cache(lambda: wiring.predictor(profile, live))
    return Candidate(
        sha256=wiring.identity_sha256(profile),
        judge=lambda content: pipeline.answer_beside(content, predictor(), live),
        promotion=promotions.last_id(ledger),
    )


@command()
def candidate(
    config: ConfigFile = DEFAULT_CONFIG,
    since: Annotated[str, typer.Option(help="Received since: 30d ago, or a date (UTC).")] = "30d",
    until: Until = None,
    sender: Annotated[str | None, typer.Option(help="Calling AE title.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV of studies that were read: a KEY, and present or absent; else what `agreement` has read."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the live profile and the candidate (model.candidate) said of the same films, side by side."""
    from cxr_node.assurance import agreement, side_by_side
    from cxr_node.node.ledger import candidates

    settings = load_config(config)
    with opened(settings) as ledger:
        at = ledger.now()
        end = parsed(lambda text: times.moment(text, at, whole_day=True), until, "--until")
        known = candidates.newest(ledger)
        if known is None:
            raise DataError("no candidate was given a film yet; name one in model.candidate")
        found = candidates.compared(ledger, known, moment_since(since, at), end, sender)
        begin = moment_since(since, at)
        said = agreement.labels(agreement.cases(ledger, begin, end)) if labels is None else _labels(ledger, labels)
    told = side_by_side.figures(((pair.live, pair.candidate), pair.sender) for pair in found.pairs)
    labelled = _labelled(found, said)
    judged = side_by_side.beside_labels(labelled) if labelled or labels is not None else None
    if as_json:
        say_json(_as_json(found, told, judged))
    else:
        _show(found, told, judged)


def _labelled(found: Compared, labels: Mapping[str, bool]) -> list[tuple[tuple[str, str], bool]]:
    """`labels` : by Study Instance UID, whether a radiologist says that the finding is there."""
    return [
        ((pair.live, pair.candidate), labels[pair.study_instance_uid])
        for pair in found.pairs
        if pair.study_instance_uid in labels
    ]


def _labels(ledger: Ledger, file: Path) -> dict[str, bool]:
    """Read a file of labels; its keys are looked up, and kept nowhere."""
    from cxr_node.dicom.read import keys
    from cxr_node.node.ledger import listing

    found: dict[str, bool] = {}
    try:
        lines = list(csv.reader(file.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read") from error
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        if len(cells) < 2 or cells[1].lower() not in _WORDS:
            if number == 1 or not any(cells):
                continue  # its head
            raise DataError(f"{file}: line {number}: write a KEY, a comma, and present or absent")
        wanted = listing.Wanted(key=cells[0], accession_keys=keys.accession_keys(cells[0]))
        found |= {row.study_instance_uid: _WORDS[cells[1].lower()] for row in listing.find(ledger, wanted, 1000)}
    return found


def _as_json(found: Compared, told: Figures, judged: Judged | None) -> dict[str, object]:
    cross = [{"live": one, "candidate": other, "films": number} for (one, other), number in sorted(told.cross.items())]
    said: dict[str, object] = {
        "candidate": found.profile,
        "candidate_sha256": found.candidate_sha256,
        "live": list(found.live_profiles),
        "films": told.films,
        "due": found.due,
        "failed": found.failed,
        "agreement": told.agreement.as_json(),
        "contradictions": told.contradictions.as_json(),
        "cross": cross,
        "by_sender": {sender: rate.as_json() for sender, rate in told.by_sender.items()},
    }
    if judged is not None:
        said["labels"] = {
            name: {
                "live": judged.live[name].as_json(),
                "candidate": judged.candidate[name].as_json(),
                "difference": judged.differences[name].as_json(),
            }
            for name in judged.differences
        }
    return said


def _show(found: Compared, told: Figures, judged: Judged | None) -> None:
    from rich.table import Table

    out.print(f"live {', '.join(found.live_profiles) or '-'}; candidate {found.profile or '-'}", markup=False)
    out.print(f"films {told.films}, due {found.due}, failed {found.failed}{', the newest' if found.is_cut else ''}")
    out.print(f"the same verdict {told.agreement}")
    out.print(f"yes against no, of those both answered {told.contradictions}")
    words = sorted({word for said in told.cross for word in said})
    table = Table("live \\ candidate", *words)
    for live in words:
        table.add_row(live, *(str(told.cross.get((live, other), 0)) for other in words))
    out.print(table)
    for sender, rate in told.by_sender.items():
        out.print(f"{sender.strip() or '-'}: the same verdict {rate}", markup=False)
    for name in judged.differences if judged is not None else ():
        assert judged is not None  # noqa: S101 - the line above
        out.print(f"{name}: live {judged.live[name]}; candidate {judged.candidate[name]}")
        out.print(f"    candidate less live {judged.differences[name]}")


@command()
def promote(
    config: ConfigFile = DEFAULT_CONFIG,
    back: Annotated[bool, typer.Option("--back", help="Make the configuration's profile live again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make the candidate live in place of model.profile, on all machines; --back takes that back."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.ledger import candidates, promotions
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    rivals = wiring.rivals(settings)
    if rivals is None:
        raise ConfigError("model.candidate: names no profile")
    with opened(settings) as ledger:
        now = promotions.current(ledger, rivals)
        if back is (now is None):
            raise DataError(f"{rivals.profile if back else rivals.candidate}: is live already")
        live, other = (rivals.profile, rivals.candidate) if back else (rivals.candidate, rivals.profile)
        if not back and candidates.newest(ledger) is None:
            raise DataError(f"{live}: has answered no film here; let it run beside {other} first (cxr-node candidate)")
        if not yes:
            typer.confirm(f"Make {live} live in place of {other}?", abort=True, err=True)
        with recorder.by_operator(settings, "promote", by := recorder.account()) as record:
            record(f"profile {live} is live in place of {other}{' again' if back else ''}")
            promotions.promote(ledger, rivals, by=by, back=back)
        wake(ledger, settings.spool.path, Role.WORK)
    more = "" if back else f"; `promote --back` takes it back. To keep it: model.profile: {live} in the configuration"
    out.print(f"{live} is live in place of {other}; workers begin with it within seconds{more}", markup=False)


__all__ = ["beside", "candidate", "promote"]
