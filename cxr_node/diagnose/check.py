"""The configuration and the world it names, before the node starts: one line each, all of them even if one fails.

What the machine is capable of is for `doctor`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cxr_node import resources, times, wiring
from cxr_node.config import consistency, permissions
from cxr_node.config.destinations import AnyDestination, DicomDestination, HttpDestination
from cxr_node.config.http import AnyTls, secret_of
from cxr_node.config.network import Address, Tls
from cxr_node.config.schema import Config
from cxr_node.config.worklists import AnyWorklist, UpsRsWorklist
from cxr_node.diagnose import disk, store, thresholds
from cxr_node.diagnose.certificates import Certificate, crl_ends_at, parse, read
from cxr_node.diagnose.thresholds import CheckResult, Fault, change, stop, well
from cxr_node.dicom.pixels import codecs
from cxr_node.errors import ConfigError, CxrNodeError, DeliveryError, ResourceError
from cxr_node.model import profile
from cxr_node.node.audit import forwarder
from cxr_node.node.deliver.link import link_to
from cxr_node.node.deliver.worklist_loop import manager_of
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.database import AbsentLedgerError
from cxr_node.node.ledger.ledger import FILE_NAME, Ledger
from cxr_node.node.ledger.states import DeliveryState
from cxr_node.node.network import tls, verification
from cxr_node.node.priors.retrieve import PriorScu
from cxr_node.node.process import supervisor
from cxr_node.node.spool.spool import OWN_NAMES
from cxr_node.tools import send

SOON_DAYS = 30


def tls_lines(config: Config) -> Iterator[CheckResult]:
    """Look at the listener's TLS, its peers, and at what is shown to destinations."""
    listen, seen = config.listen, set[Path]()
    if listen.tls is not None:
        yield from _side("listen.tls", listen.tls, True, seen)
    for peer in listen.peers:
        certificate = ", ".join(peer.certificate) or ("any of the CA" if listen.tls is not None else "none")
        sentence = f"{peer.ae_title} may call from {', '.join(peer.hosts) or 'any host'}, certificate: {certificate}"
        yield well("peer", sentence)
    for destination in config.destinations:
        if (shown := destination.tls_files) is not None:
            yield from _side(f"destination {destination.name} tls", shown, False, seen)
    for worklist in config.worklists:
        if worklist.tls is not None:
            yield from _side(f"worklist {worklist.name} tls", worklist.tls, False, seen)


def is_shown_at(ours: Tls, where: Address) -> bool:
    """Whether a server there shows the listener's own certificate."""
    shown = send.certificate_at(where.host, where.port)
    return shown is not None and parse(shown, where)[0] == read(ours.located().certificate)[0]


def _side(subject: str, side: AnyTls, listens: bool, seen: set[Path]) -> Iterator[CheckResult]:
    """One `tls` section; files named twice are reported once."""
    try:
        yield from _shown(subject, side, listens, seen)
    except ConfigError as error:
        yield stop(subject, str(error))


def _shown(subject: str, side: AnyTls, listens: bool, seen: set[Path]) -> Iterator[CheckResult]:
    files = side.located()
    context = tls.server_tls(side) if listens and isinstance(side, Tls) else tls.client_tls(side)
    chain = read(files.certificate) if files.certificate is not None else []
    for version, ciphers in tls.offered(context, chain[0].is_rsa if chain else None).items():
        yield well(subject, f"{version} with {', '.join(ciphers)}")
    if chain and not (chain[0].for_servers if listens else chain[0].for_clients):
        side_name = "server" if listens else "client"
        yield stop(subject, f"{files.certificate}: is not for TLS {side_name}s (key usage)")
    if files.certificate not in seen:
        yield from (_dated(f"{subject} certificate", found) for found in chain)
    if files.ca is not None and files.ca not in seen:
        yield from (_dated(f"{subject} CA", found) for found in read(files.ca))
    if files.crl is not None and files.crl not in seen:
        yield _crl(subject, files.crl)
    seen.update(file for file in (files.certificate, files.ca, files.crl) if file is not None)


def _dated(subject: str, found: Certificate) -> CheckResult:
    names = f", for {', '.join(found.names)}" if found.names else ""
    issuer = "itself" if found.issuer == found.subject else found.issuer
    whose = f"{found.subject}{names}, by {issuer}, sha256 {found.fingerprint}"
    now = datetime.now(UTC)
    if found.begins_at > now:
        sentence = f"{whose}, is valid only from {found.begins_at:%Y-%m-%d %H:%M}Z"
        return stop(subject, sentence, fault=Fault.WORLD)
    return _ending(subject, whose, found.ends_at, now)


def _crl(subject: str, path: Path) -> CheckResult:
    ends_at = crl_ends_at(path)
    if ends_at is None:
        return well(f"{subject} crl", f"{path}: has no date of the next update")
    return _ending(f"{subject} crl", f"{path}", ends_at, datetime.now(UTC), soon_days=0)


def _ending(subject: str, what: str, ends_at: datetime, now: datetime, soon_days: int = SOON_DAYS) -> CheckResult:
    if ends_at <= now:
        sentence = f"{what}, ended {ends_at:%Y-%m-%d %H:%M}Z: peers refuse it"
        return stop(subject, sentence, fault=Fault.WORLD)
    days = (ends_at - now).days
    sentence = f"{what}, ends {ends_at:%Y-%m-%d %H:%M}Z, in {days} days"
    return change(subject, sentence) if days < soon_days else well(subject, sentence)


_MIB = 1024 * 1024


def as_json(result: CheckResult) -> dict[str, object]:
    """One line of `cxr-node check --json`."""
    told: dict[str, object] = {"ok": result.ok, "warning": result.warning, "subject": result.subject}
    told["sentence"] = result.figure
    return told if result.ok else told | {"fault": result.fault.value}


def check(config: Config, source: str) -> Iterator[CheckResult]:
    """Look at configuration, weights, decoders, disk, port and destinations."""
    yield well("configuration", f"{source}: every key is known, and none holds a secret")
    for sentence in _warnings(config):
        yield change("configuration", sentence)
    if keys := _tls(config):
        yield _try("private keys", partial(_private_keys, keys))
    if any(each.authentication for each in _servers(config)):
        yield _try("secrets", partial(_secrets, config))
    yield from tls_lines(config)
    yield from _profiles(config)
    yield _time_zone(config)
    for syntax in codecs.transfer_syntaxes():
        yield well("transfer syntax", f"{syntax.name} ({syntax.uid})")
    yield from _kept(config)
    yield _try("port", partial(_port, config))
    if not config.destinations:
        yield stop("destinations", "none configured: results would not be sent")
    yield from _asked(config)
    yield from _removed(config)
    if config.audit.enabled and config.audit.syslog is not None:
        yield _try("audit collector", partial(forwarder.reach, config.audit.syslog))


def _asked(config: Config) -> Iterator[CheckResult]:
    """Ask every destination, the source of earlier radiographs, and every worklist once."""
    for destination in config.destinations:
        yield _try(f"destination {destination.name}", partial(_probe, config, destination))
    if config.priors is not None:
        yield _try("priors", partial(_priors, config, config.priors.source))
    for worklist in config.worklists:
        yield _try(f"worklist {worklist.name}", partial(_worklist, config, worklist))


def _profiles(config: Config) -> Iterator[CheckResult]:
    for name in (config.model.profile, *config.model.others):
        yield _try("weights", partial(_weights, name))
    if config.model.candidate is not None:
        yield _try("candidate", partial(_candidate, config))


def _kept(config: Config) -> Iterator[CheckResult]:
    """Look at the places where bytes and ledger are."""
    yield _try("spool", partial(_spool, config))
    if config.spool.store.kind != "file":
        yield _try("store", partial(store.reach, config.spool))
    if config.ledger.url is not None:
        yield _try("ledger", partial(_database, config))


def _warnings(config: Config) -> Iterator[str]:
    yield from consistency.doubtful(config)
    for name in (config.model.profile, *config.model.others):
        with suppress(ConfigError):  # no such profile: said where weights are looked at
            folder = resources.profile_folder(name)
            if permissions.changeable(folder):
                yield f"{folder}: this account may change the weights; let another own them"
    if os.geteuid() == 0 and config.listen.port and config.listen.port < (first := _first_free_port()):
        yield f"listen.port: {config.listen.port} is for the superuser; the systemd units listen from {first} on"
    path = config.spool.path
    if path.exists() and (free_mib := shutil.disk_usage(path).free // _MIB) < config.listen.max_object_mib:
        yield f"listen.max_object_mib: {config.listen.max_object_mib} is more than {path} has free ({free_mib} MiB)"


def _time_zone(config: Config) -> CheckResult:
    """Time zone assumed for study times; a host in UTC rarely matches the modalities."""
    name, named = config.results.time_zone, "study times without a UTC offset are taken to be in"
    if name is not None:
        return well("time zone", f"{named} {name} (results.time_zone)")
    found = times.zone(None)
    told = times.name_of(found)
    sentence = f"{named} this host's zone, {told}"
    if is_utc := found.utcoffset(datetime(2025, 1, 1)) == found.utcoffset(datetime(2025, 7, 1)) == timedelta():
        sentence += "; where the modalities' clocks show another one, write results.time_zone"
    return change("time zone", sentence) if is_utc else well("time zone", sentence)


def _first_free_port() -> int:
    """Lowest port that any account may listen on (ip(7))."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def _tls(config: Config) -> list[AnyTls]:
    found: list[AnyTls | None] = [config.listen.tls, *(destination.tls_files for destination in config.destinations)]
    found += [worklist.tls for worklist in config.worklists]
    found += [config.audit.syslog.tls] if config.audit.syslog is not None else []
    return [tls for tls in found if tls is not None and tls.key is not None]


def _servers(config: Config) -> list[HttpDestination]:
    """All that are spoken to over HTTP."""
    found = [each for each in config.destinations if isinstance(each, HttpDestination)]
    return found + [each.server for each in config.worklists if isinstance(each, UpsRsWorklist)]


def _private_keys(found: Sequence[AnyTls]) -> str:
    """Say which they are; all that are missing at once."""
    keys = {key for tls in found if (key := tls.located().key) is not None}
    if missing := sorted(sentence for key in keys if (sentence := _unreadable(key))):
        raise ConfigError("; ".join(missing))
    return f"{', '.join(sorted(map(str, keys)))}: read by the owner only"


def _secrets(config: Config) -> str:
    """Say which files authenticate us at destinations; all that are missing at once."""
    shown = [each.authentication for each in _servers(config)]
    files = sorted({permissions.private_key(secret_of(each), "secret") for each in shown if each is not None})
    if missing := [sentence for file in files if (sentence := _empty(file))]:
        raise ConfigError("; ".join(missing))
    return f"{', '.join(map(str, files))}: read by the owner only"


def _empty(secret: Path) -> str | None:
    """Why a file holds no secret; None if it does."""
    try:
        return None if secret.read_bytes().strip() else f"{secret}: is empty"
    except OSError as error:
        return f"{secret}: {(error.strerror or 'cannot be read').lower()}"


def _unreadable(key: Path) -> str | None:
    """Why a private key cannot be used; None if it can."""
    try:
        content = key.read_bytes()
    except OSError as error:
        return f"{key}: {(error.strerror or 'cannot be read').lower()}"
    return None if b"PRIVATE KEY-----" in content else f"{key}: holds no private key (PEM)"


def _try(subject: str, look: Callable[[], str]) -> CheckResult:
    try:
        return well(subject, look())
    except CxrNodeError as error:
        fault = Fault.WORLD if isinstance(error, DeliveryError | ResourceError) else Fault.FILE
        return stop(subject, str(error), fault=fault)


def _weights(name: str) -> str:
    loaded = profile.load(resources.profile_folder(name))
    youngest, oldest = loaded.population.age_years
    ages = f"for ages {youngest:g} to {oldest:g}"
    return f"{loaded.name} {loaded.version} {ages}, sha256 {loaded.weights_sha256[:12]}… as released"


def _candidate(config: Config) -> str:
    found = wiring.candidate(config)
    assert found is not None  # noqa: S101 - it is configured
    return f"{found.name} {found.version} judges after {config.model.profile} what that has answered; nothing is sent"


def _spool(config: Config) -> str:
    path = config.spool.path
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free_mib = shutil.disk_usage(existing).free // _MIB
    if free_mib < config.spool.min_free_mib:
        raise ResourceError(
            f"{path}: {free_mib} MiB free, spool.min_free_mib asks for {config.spool.min_free_mib}: "
            "every C-STORE would be answered 0xA700"
        )
    if thresholds.is_network(kind := disk.kind(existing)):
        raise ConfigError(f"{path}: is on another machine ({kind}); the ledger in it needs a local disk")
    open_to_others = permissions.is_open(path, OWN_NAMES)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: is not writable for this user")
    closing = "; open to others now, the node closes it when it starts" if open_to_others else ""
    return f"{path}: {free_mib} MiB free, accepting above {config.spool.min_free_mib} MiB{closing}"


def _database(config: Config) -> str:
    """Whether the server of the ledger lets us in, and keeps what it commits."""
    try:
        ledger = Ledger.of_node(config, must_exist=True)
    except AbsentLedgerError as absent:
        return f"{absent.place}: answers; the node makes its tables when it starts"
    try:
        server = ledger.database.describe()
    finally:
        ledger.close()
    if server.loses_commits:
        raise ConfigError(
            f"{ledger.database.place}: synchronous_commit is {server.synchronous_commit}: a crash of the server would "
            "forget images that were acknowledged; write on"
        )
    return (
        f"{ledger.database.place}: PostgreSQL {server.version}, its clock differs from ours by {server.differs_s:.1f} s"
    )


def _port(config: Config) -> str:
    listen = config.listen
    where = Address(ae_title=listen.ae_title, host=listen.host, port=listen.port or 11112)
    try:
        send.bind_for_a_moment(listen.host, listen.port)
        return f"{where} is free to listen on"
    except ResourceError as busy:
        if listen.proxy_protocol:  # it may not hear us without a header
            if not supervisor.look(config.spool.path)["receive"].running:
                raise
            return f"{where} is already served, by this node"
        if listen.tls is not None:
            if not is_shown_at(listen.tls, where):
                raise
            return f"{where} is already served, with our certificate"
        try:
            verification.echo(where, listen.ae_title, timeout_s=2.0)
        except DeliveryError:
            raise busy from None
        return f"{where} is already served, by this node or another"


def _probe(config: Config, destination: AnyDestination) -> str:
    return link_to(destination, config.listen.ae_title).probe()


def _priors(config: Config, name: str) -> str:
    """Whether the source of earlier radiographs can be asked; the schema knows that there is one of that name."""
    source = next(each for each in config.destinations if each.name == name and isinstance(each, DicomDestination))
    syntaxes = [syntax.uid for syntax in codecs.transfer_syntaxes()]
    return PriorScu(source, config.listen.ae_title, syntaxes).probe()


def _worklist(config: Config, worklist: AnyWorklist) -> str:
    return manager_of(worklist, config.listen.ae_title).probe()


def _removed(config: Config) -> Iterator[CheckResult]:
    """Deliveries that wait for destinations which this configuration does not name; for the ledger's owner to see."""
    file = config.spool.path / FILE_NAME
    is_ours = file.exists() and file.stat().st_uid == os.geteuid()  # what root made here the services could not write
    if config.ledger.url is None and not is_ours:
        return
    try:
        ledger = Ledger.of_node(config, must_exist=True)
    except CxrNodeError:
        if config.ledger.url is None:
            raise
        return  # the line of the ledger says why
    try:
        queues = queries.queues(ledger)
    finally:
        ledger.close()
    known = {destination.name for destination in config.destinations}
    for name, states in queues.items():
        waiting = states[DeliveryState.READY] + states[DeliveryState.WAIT]
        if waiting and name not in known:
            sentence = f"no longer configured; {waiting} deliveries wait for it, and are DEAD when deliver starts"
            yield change(f"destination {name}", sentence)
