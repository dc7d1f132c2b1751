"""Operator commands: resend, rejudge, admit, erase; registered by `cli`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cxr_node.cli import tables
from cxr_node.cli.app import DEFAULT_CONFIG, AsJson, ConfigFile, command, err, load_config, out, say_json
from cxr_node.cli.ledger import (
    as_logged,
    known_destination,
    member,
    moment_since,
    opened,
    parsed,
    reason_of,
    unconfigured,
    unknown,
)
from cxr_node.domain import Reason
from cxr_node.errors import DataError, ResourceError
from cxr_node.result_kinds import Wish

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxr_node.config.schema import Config
    from cxr_node.node.audit.messages import Act, Deed
    from cxr_node.node.deliver.retention import Doomed, Left
    from cxr_node.node.ledger.ledger import Ledger
    from cxr_node.node.ledger.operator_moves import Rejudged, Resent

_PATIENCE_S = 150.0  # a lease of a worker that died runs out within this
_GONE = "retention has deleted their bytes: have the PACS send those images again, then repeat the command"

Key = Annotated[str, typer.Argument(help="As for `trace`: a UID, an Accession Number, a number, a digest.")]
MaybeKey = Annotated[str | None, typer.Argument(help="As for `trace`: a UID, an Accession Number, a number, a digest.")]
Since = Annotated[str | None, typer.Option(help="Only images received since: 12h, 7d, or a date and time.")]


@command()
def resend(
    key: MaybeKey = None,
    to: Annotated[str | None, typer.Option("--to", help="Only to this destination.")] = None,
    since: Since = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Send known results again, the same bytes under the same UIDs; also to a new destination."""
    from cxr_node.node.audit.recorder import account
    from cxr_node.node.ledger import operator_moves
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role
    from cxr_node.node.spool.opening import open_spool

    settings = load_config(config)
    if key is None and since is None:
        raise DataError("name an image or a study, or write --since for all that came since then")
    wanted = _destinations(settings, to)
    with opened(settings) as ledger:
        found = _found(ledger, key, since)
        done = operator_moves.resend(
            ledger, open_spool(settings.spool), found, wanted, named=key is not None, by=account()
        )
        wake(ledger, settings.spool.path, Role.DELIVER)
    _report_resent(done, list(wanted))


@command()
def rejudge(
    key: MaybeKey = None,
    rejected: Annotated[str | None, typer.Option(help="All that was rejected for this reason.")] = None,
    since: Since = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Judge images again under the present configuration; an answer that stays the same is not sent twice."""
    from cxr_node.node.audit.recorder import account
    from cxr_node.node.ledger import operator_moves
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    if (key is None) == (rejected is None):
        raise DataError("name an image or a study, or write --rejected and a reason")
    reason = reason_of(rejected, "--rejected", rejected=True)
    with opened(settings) as ledger:
        done = operator_moves.rejudge(ledger, _found(ledger, key, since, reason), by=account())
        wake(ledger, settings.spool.path, Role.WORK)
    _report_queued(done)


@command()
def admit(key: Key, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Accept a corrected patient or study that contradicts earlier images, and judge the image."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.audit.messages import Deed
    from cxr_node.node.deliver import retention
    from cxr_node.node.ledger import operator_moves
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role
    from cxr_node.node.spool.opening import open_spool

    settings = load_config(config)
    with opened(settings) as ledger:
        found = operator_moves.conflicts(ledger, _found(ledger, key, None))
        with recorder.by_operator(settings, "admit", by := recorder.account()) as record:
            words = "the corrected patient or study is accepted"
            _report_studies(retention.look(ledger, found), Deed.ACCESSED, words, record)
            done = operator_moves.admit(ledger, open_spool(settings.spool), found, by=by)
        earlier = retention.look(ledger, retention.related(ledger, found))
        wake(ledger, settings.spool.path, Role.WORK)
    _report_queued(done)
    left = [left for each in earlier for left in each.left]
    if left:
        out.print("Results of the earlier header remain in archives and must be removed there:")
        _report_left(left, settings)


@command()
def erase(
    key: MaybeKey = None,
    patient: Annotated[
        str | None,
        typer.Option(help="All images of this Patient ID; - prompts for it, so that no shell history has it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Erase a patient's or a study's images and results from this node, and list what archives still hold."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.deliver import retention

    settings = load_config(config)
    if (key is None) == (patient is None):
        raise DataError("name an image or a study, or write --patient and a Patient ID")
    with opened(settings) as ledger:
        found = _found(ledger, key, None) if key is not None else _of_patient(ledger, patient or "")
        images = retention.look(ledger, found)
        if not yes:
            results = sum(each.results for each in images)
            typer.confirm(f"Erase {len(images)} images and {results} result objects for good?", abort=True, err=True)
        with recorder.by_operator(settings, "erase", recorder.account()) as record:
            done = _erased(ledger, settings, images, record, quiet=as_json)
        others = retention.related(ledger, found)
    left = [left for each in done for left in each.left]
    if as_json:
        say_json({"erased": len(done), "left": tables.plain(left), "other_versions": others})
        return
    out.print(f"{len(done)} images are erased here: objects, results and rows.")
    _report_left(left, settings)
    _report_kept(settings, others)


@command()
def hold(
    destination: Annotated[str, typer.Argument(help="Name of a destination.")],
    reason: Annotated[
        str | None, typer.Option("--reason", help="maintenance, migration, storage-full or wrong-results.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Let what is for a destination wait, without an attempt, until it is released."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.ledger import holds

    settings = load_config(config)
    name, by = _configured(settings, destination), recorder.account()
    why = parsed(lambda word: member(holds.HoldReason, word), reason, "--reason")
    with opened(settings) as ledger, recorder.by_operator(settings, "hold", by) as record:
        held = holds.hold(ledger, name, by, why)
        record(f"destination {name} is held{f': {held.reason}' if held.reason else ''}")
    since = f"{held.since:%Y-%m-%d %H:%M:%S} UTC"
    out.print(f"{name} is held since {since} by {held.by}; `cxr-node release {name}` sends what waits", markup=False)


@command()
def release(
    destination: Annotated[str, typer.Argument(help="Name of a destination.")], config: ConfigFile = DEFAULT_CONFIG
) -> None:
    """End the hold of a destination: all that waits for it is due at once."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.ledger import holds
    from cxr_node.node.ledger.wake import wake
    from cxr_node.node.process.notify import Role

    settings = load_config(config)
    by = recorder.account()
    with opened(settings) as ledger, recorder.by_operator(settings, "release", by) as record:
        held = holds.look(ledger)
        name = _configured(settings, destination, *held)
        waiting = holds.release(ledger, name, by=by)
        if waiting is None:
            raise DataError(f"{name}: is not held; held are: {', '.join(held) or 'none'}")
        record(f"destination {name} is released")
        wake(ledger, settings.spool.path, Role.DELIVER)
    out.print(f"{name} is released: {waiting} objects are due now", markup=False)


@command(name="set-aside")
def set_aside(
    key: Key,
    reason: Annotated[
        str | None, typer.Option("--reason", help="duplicate, wrong-patient, sent-otherwise, not-needed or test-image.")
    ] = None,
    destination: Annotated[str | None, typer.Option("--destination", help="Only what is for this destination.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """End what is DEAD or waits, for a coded reason: it is not judged and not sent; `retry KEY` takes that back."""
    from cxr_node.node.audit import recorder
    from cxr_node.node.audit.messages import Deed
    from cxr_node.node.deliver import retention
    from cxr_node.node.ledger import set_aside
    from cxr_node.node.ledger.states import SetAsideReason

    settings = load_config(config)
    why = parsed(lambda word: member(SetAsideReason, word), reason, "--reason")
    if why is None:
        raise DataError(f"say why: --reason {', '.join(SetAsideReason)}")
    with opened(settings) as ledger:
        name = known_destination(ledger, settings, destination)
        found = _found(ledger, key, None)
        with recorder.by_operator(settings, "set-aside", by := recorder.account()) as record:
            done = set_aside.set_aside(ledger, found, why, by=by, destination=name)
            if done.ids:
                words = f"set aside: {why}" + (f", for {name}" if name else "")
                _report_studies(retention.look(ledger, done.ids), Deed.ACCESSED, words, record)
    out.print(f"{len(done.ids)} images, {done.deliveries} deliveries set aside: {why}")
    if done.in_hand:
        raise ResourceError(f"{done.in_hand} are being judged or sent right now; repeat the command in a minute")
    if not done.ids:
        raise DataError(f"{key}: nothing of it is DEAD or waits")


def _configured(settings: Config, destination: str, *others: str) -> str:
    """Name of a destination as it was typed, or one of `others`."""
    name, known = as_logged(destination), list(dict.fromkeys([*(to.name for to in settings.destinations), *others]))
    if name not in known:
        raise unconfigured(name, known)
    return name


def _destinations(settings: Config, name: str | None) -> dict[str, Wish]:
    known = settings.wishes
    if name is None:
        return known
    return {configured: known[configured] for configured in (_configured(settings, name),)}


def _found(ledger: Ledger, key: str | None, since: str | None, rejected: str | None = None) -> list[int]:
    """Rows that the options select; an error if there are none."""
    from cxr_node.dicom.read import keys
    from cxr_node.node.ledger import lookup, operator_moves

    named = [] if key is None else [lookup.matching(key.strip(), keys.accession_keys(key))]
    which = [] if rejected is None else [operator_moves.rejected_for(Reason(rejected))]
    after = None if since is None else moment_since(since, ledger.now())
    found = operator_moves.find(ledger, *named, *which, since=after)
    if found:
        return found
    if key is not None and not operator_moves.find(ledger, *named):
        raise unknown(key)
    raise DataError("there is no such image" + (f" since {since}" if since else ""))


def _of_patient(ledger: Ledger, patient: str) -> list[int]:
    """The Patient ID is written nowhere, not even in the answer."""
    from cxr_node.dicom.read import keys
    from cxr_node.node.deliver import retention

    if patient == "-":
        patient = typer.prompt("Patient ID", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not patient.strip():
        raise DataError("--patient: is empty")
    found = retention.of_patient(ledger, lambda study: keys.patient_keys(study, patient.strip()))
    if not found:
        raise DataError("the ledger knows no image of this Patient ID")
    return found


def _erased(
    ledger: Ledger, settings: Config, images: Sequence[Doomed], record: Callable[[Act], None], *, quiet: bool
) -> list[Doomed]:
    """Erase one after the other, as they are by then; after a fault, what was erased is still audited."""
    from cxr_node.node.audit.messages import Deed
    from cxr_node.node.deliver import retention
    from cxr_node.node.spool.opening import open_spool

    spool = open_spool(settings.spool)
    done: list[Doomed] = []

    def each_erased() -> Iterator[Doomed]:
        for image in images:
            done.append(retention.erase(ledger, spool, image.instance_id, _PATIENCE_S) or image)
            yield image

    try:
        for _ in tables.progress(each_erased(), len(images), "erasing", quiet=quiet):
            pass
    finally:
        _report_studies(done, Deed.ERASED, "images and their results are erased from this node", record)
    return done


def _report_studies(images: Sequence[Doomed], deed: Deed, words: str, record: Callable[[Act], None]) -> None:
    """Audit what was done, once for each patient in each study."""
    from cxr_node.node.audit.messages import Act

    for study, patient_key in dict.fromkeys((each.study_instance_uid, each.patient_key) for each in images):
        here = [each for each in images if (each.study_instance_uid, each.patient_key) == (study, patient_key)]
        classes = Counter(each.sop_class_uid for each in here)
        record(Act(deed=deed, study_instance_uid=study, patient_key=patient_key, sop_classes=classes, words=words))


def _report_resent(done: Resent, names: Sequence[str]) -> None:
    for name in names:
        out.print(f"{name}: {done.due[name]} objects are due again")
    if done.waiting:
        out.print(f"{done.waiting} objects were waiting to be sent anyway")
    if done.shadow:
        out.print(f"{done.shadow} objects stay in shadow (cxr-node shadow)")
    if done.replaced:
        out.print(f"{done.replaced} images left out: a corrected version has replaced them")
    if done.without:
        out.print(f"{done.without} images have no results to be sent")
    if done.purged:
        err.print(
            f"{done.purged} images: their results are no longer in the spool; `cxr-node rejudge` makes them again. "
            "Where retention has deleted the radiograph too, have the PACS send it first"
        )
    if not done.due and not done.waiting and not done.shadow:
        raise DataError("nothing is sent")


def _report_queued(done: Rejudged) -> None:
    out.print(f"{done.queued} back in the queue")
    if done.waiting:
        out.print(f"{done.waiting} were in the queue anyway")
    if done.purged:
        err.print(f"{done.purged} images: {_GONE}")
    if not done.queued and not done.waiting:
        raise DataError("nothing to judge again")


def _report_left(left: Sequence[Left], settings: Config) -> None:
    addresses = {to.name: to.where for to in settings.destinations}
    if not left:
        out.print("No archive has a result of them.")
    for one in left:
        where = f"{one.destination} ({addresses.get(one.destination, 'no longer configured')})"
        doubt = "" if one.is_sure else ", perhaps: it was never acknowledged"
        words = f"{where}: {one.kind} {one.sop_instance_uid} of study {one.study_instance_uid}{doubt}"
        out.print(words, markup=False, soft_wrap=True)


def _report_kept(settings: Config, versions: Sequence[int]) -> None:
    """What this node still has, and what it never had."""
    if versions:
        numbers = ", ".join(map(str, versions))  # a shell takes #7 for a comment
        out.print(
            f"Kept: other versions of these images under another header, numbers {numbers}; erase them by number."
        )
    if settings.audit.enabled:
        out.print(
            f"The audit trail keeps study UIDs and pseudonyms for {settings.audit.keep_days:g} days, and that this was "
            "erased. Backups, and the radiographs in the PACS, are not touched."
        )
