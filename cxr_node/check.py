"""The configuration and the world it names, before the node starts: one line each, all of them even if one fails.

What the machine is capable of is for `doctor`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from cxr_node import check_tls, contradictions, diagnosis_disk, permissions, shipped, time_zone
from cxr_node.config import Address, Config, Destination, Tls
from cxr_node.dicom import decoders
from cxr_node.errors import ConfigError, CxrNodeError, DeliveryError, ResourceError
from cxr_node.line import Fault, Line
from cxr_node.model import profile
from cxr_node.node import audit_forwarder, disk, history, send
from cxr_node.node.association import Wrapping
from cxr_node.node.jobs import DeliveryState
from cxr_node.node.ledger import FILE_NAME, Ledger
from cxr_node.node.spool import OWN_NAMES

_MIB = 1024 * 1024


def check(config: Config, source: str) -> Iterator[Line]:
    """Look at configuration, weights, decoders, disk, port and destinations."""
    yield Line(ok=True, subject="configuration", sentence=f"{source}: every key is known, and none holds a secret")
    for sentence in _warnings(config):
        yield Line(ok=True, warning=True, subject="configuration", sentence=sentence)
    if keys := _tls(config):
        yield _try("private keys", partial(_private_keys, keys))
    yield from check_tls.tls_lines(config)
    for name in (config.model.profile, *config.model.others):
        yield _try("weights", partial(_weights, name))
    yield _time_zone(config)
    for syntax in decoders.transfer_syntaxes():
        yield Line(ok=True, subject="transfer syntax", sentence=f"{syntax.name} ({syntax.uid})")
    yield _try("spool", partial(_spool, config))
    yield _try("port", partial(_port, config))
    if not config.destinations:
        yield Line(ok=False, subject="destinations", sentence="none configured: results would go nowhere")
    for destination in config.destinations:
        yield _try(f"destination {destination.name}", partial(_echo, config, destination))
    yield from _removed(config)
    if config.audit.enabled and config.audit.syslog is not None:
        yield _try("audit collector", partial(audit_forwarder.reach, config.audit.syslog))


def _warnings(config: Config) -> Iterator[str]:
    yield from contradictions.doubtful(config)
    for name in (config.model.profile, *config.model.others):
        with suppress(ConfigError):  # no such profile: said where weights are looked at
            folder = shipped.profile_folder(name)
            if permissions.changeable(folder):
                yield f"{folder}: this account may change the weights; let another own them"
    if os.geteuid() == 0 and config.listen.port and config.listen.port < (first := _first_free_port()):
        yield f"listen.port: {config.listen.port} is for the superuser; the systemd units listen from {first} on"
    path = config.spool.path
    if path.exists() and (free_mib := shutil.disk_usage(path).free // _MIB) < config.listen.max_object_mib:
        yield f"listen.max_object_mib: {config.listen.max_object_mib} is more than {path} has free ({free_mib} MiB)"


def _time_zone(config: Config) -> Line:
    """Which zone study times are taken to be of; a host in UTC rarely stands where the clocks do."""
    name, named = config.results.time_zone, "study times that do not tell their offset from UTC are taken to be of"
    if name is not None:
        return Line(ok=True, subject="time zone", sentence=f"{named} {name} (results.time_zone)")
    found = time_zone.zone(None)
    told = time_zone.name_of(found)
    sentence = f"{named} this host's zone, {told}"
    if is_utc := found.utcoffset(datetime(2025, 1, 1)) == found.utcoffset(datetime(2025, 7, 1)) == timedelta():
        sentence += "; where the modalities' clocks show another one, write results.time_zone"
    return Line(ok=True, warning=is_utc, subject="time zone", sentence=sentence)


def _first_free_port() -> int:
    """Lowest port that any account may listen on (ip(7))."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def _tls(config: Config) -> list[Tls]:
    found = [config.listen.tls, *(destination.tls for destination in config.destinations)]
    found += [config.audit.syslog.tls] if config.audit.syslog is not None else []
    return [tls for tls in found if tls is not None]


def _private_keys(found: Sequence[Tls]) -> str:
    """Say which they are; all that are missing at once."""
    keys = {tls.located().key for tls in found}
    if missing := sorted(sentence for key in keys if (sentence := _unreadable(key))):
        raise ConfigError("; ".join(missing))
    return f"{', '.join(sorted(map(str, keys)))}: read by the owner only"


def _unreadable(key: Path) -> str | None:
    """Why a private key cannot be used; None where it holds one."""
    try:
        content = key.read_bytes()
    except OSError as error:
        return f"{key}: {(error.strerror or 'cannot be read').lower()}"
    return None if b"PRIVATE KEY-----" in content else f"{key}: holds no private key (PEM)"


def _try(subject: str, look: Callable[[], str]) -> Line:
    try:
        return Line(ok=True, subject=subject, sentence=look())
    except CxrNodeError as error:
        fault = Fault.WORLD if isinstance(error, DeliveryError | ResourceError) else Fault.FILE
        return Line(ok=False, subject=subject, sentence=str(error), fault=fault)


def _weights(name: str) -> str:
    loaded = profile.load(shipped.profile_folder(name))
    youngest, oldest = loaded.population.age_years
    ages = f"for ages {youngest:g} to {oldest:g}"
    return f"{loaded.name} {loaded.version} {ages}, sha256 {loaded.weights_sha256[:12]}… as released"


def _spool(config: Config) -> str:
    path = config.spool.path
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free_mib = shutil.disk_usage(existing).free // _MIB
    if free_mib < config.spool.min_free_mib:
        raise ResourceError(
            f"{path}: {free_mib} MiB free, spool.min_free_mib asks for {config.spool.min_free_mib}: "
            "every C-STORE would be answered 0xA700"
        )
    if diagnosis_disk.is_network(kind := disk.kind(existing)):
        raise ConfigError(f"{path}: lies on another machine ({kind}); the ledger in it needs a local disk")
    open_to_others = permissions.is_open(path, OWN_NAMES)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: is not writable for this user")
    closing = "; open to others now, the node closes it when it starts" if open_to_others else ""
    return f"{path}: {free_mib} MiB free, accepting above {config.spool.min_free_mib} MiB{closing}"


def _port(config: Config) -> str:
    listen = config.listen
    where = Address(ae_title=listen.ae_title, host=listen.host, port=listen.port or 11112)
    try:
        send.bind_for_a_moment(listen.host, listen.port)
        return f"{where} is free to listen on"
    except ResourceError as busy:
        if listen.tls is not None:
            if not check_tls.is_shown_at(listen.tls, where):
                raise
            return f"{where} is already served, with our certificate"
        try:
            send.echo(where, listen.ae_title, timeout_s=2.0)
        except DeliveryError:
            raise busy from None
        return f"{where} is already served, by this node or another"


def _echo(config: Config, destination: Destination) -> str:
    tls = Wrapping(destination).arguments()
    send.echo(destination.address, destination.calling_ae_title or config.listen.ae_title, tls=tls)
    return f"{destination.address} answers the C-ECHO{' over TLS' if tls else ''}"


def _removed(config: Config) -> Iterator[Line]:
    """Deliveries that wait for destinations which this configuration does not name; for the ledger's owner to see."""
    file = config.spool.path / FILE_NAME
    if not file.exists() or file.stat().st_uid != os.geteuid():  # what root made here the services could not write
        return
    ledger = Ledger.open(config.spool.path)
    try:
        queues = history.queues(ledger)
    finally:
        ledger.close()
    known = {destination.name for destination in config.destinations}
    for name, states in queues.items():
        waiting = states[DeliveryState.READY] + states[DeliveryState.WAIT]
        if waiting and name not in known:
            sentence = f"not configured any more; {waiting} deliveries wait for it, and are DEAD when deliver starts"
            yield Line(ok=True, warning=True, subject=f"destination {name}", sentence=sentence)
