"""Values that are each allowed and together wrong or dangerous. Imports no room, reads nothing but the values.

`refused` cannot work and stops the node (exit 78); `doubtful` works, but rarely as intended: `check` warns.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxr_node.config.destinations import (
    ArchiveDestination,
    DicomDestination,
    DicomWebDestination,
    Hl7Destination,
    HttpDestination,
)
from cxr_node.config.worklists import UpsRsWorklist
from cxr_node.result_kinds import Release, ReportPer, ResultKind

if TYPE_CHECKING:
    from cxr_node.config.network import Address
    from cxr_node.config.page import Web
    from cxr_node.config.schema import Config, Listen
    from cxr_node.config.storage import AnyStore

SHORT_LEASE_S = 30.0
"""A job is called hung after five leases; one damaged image alone may hold the decoders for two minutes."""
SHORT_IDLE_S = 10.0
"""Modalities pause so long between two images of one association, and archives before they answer."""
SHORT_RETENTION_DAYS = 3.0
"""A weekend: what is DEAD on Friday evening can be retried on Monday."""
SHORT_QUIET_S = 2.0
"""Between two exposures of a study a minute may pass, and its images are sent one after the other."""
MANY_PROXIES = 256
"""Addresses of a network; a hospital has two load balancers."""


def refused(config: Config) -> Iterator[str]:
    """What cannot work, or must not be done by accident."""
    yield from _in_plain_text(config.listen)
    if config.web is not None:
        yield from _open_page(config.web)
    yield from _unprotected(config.spool.store)
    yield from _http(config)
    for destination in config.destinations:
        if destination.kind == "dicom" and _is_ours(destination.address, config.listen):
            yield (
                f"destinations.{destination.name}.address: {destination.where} is the node's own listener; "
                "its results would come back to it"
            )
    yield from _messages_in_plain_text(config)
    yield from _worklists(config)
    yield from _share_of_nothing(config)
    yield from _candidate(config)
    delivery = config.delivery
    if delivery.first_delay_s > delivery.max_delay_s:
        yield f"delivery.first_delay_s: {delivery.first_delay_s:g} is more than max_delay_s, {delivery.max_delay_s:g}"
    if delivery.first_delay_s >= delivery.max_age_h * 3600:
        yield f"delivery.max_age_h: {delivery.max_age_h:g} ends before the first repeat of a failed delivery is due"


def _worklists(config: Config) -> Iterator[str]:
    """An item is completed when an SR about its images is stored."""
    documents = {ResultKind.REPORT, ResultKind.MEASUREMENTS}
    archives = [each for each in config.destinations if isinstance(each, ArchiveDestination)]
    if config.worklists and not any(documents & set(each.send) for each in archives):
        yield "worklists: no archive is sent report or measurements: no work item could be completed; add one to send"


def _candidate(config: Config) -> Iterator[str]:
    model = config.model
    if model.candidate is None:
        return
    if model.candidate in (model.profile, *model.others):
        yield f"model.candidate: {model.candidate} answers already; name another profile, or none"
    if config.work.max_attempts == 1:
        yield "work.max_attempts: 1: a candidate that ends its worker could cost an image its only attempt; write 3"


def _share_of_nothing(config: Config) -> Iterator[str]:
    """A share of studies that goes out, where nothing does."""
    if config.results.release is Release.SHADOW and "release_share" in config.results.model_fields_set:
        yield "results.release_share: results.release is shadow: nothing is sent; write release: live, or no share"
    for each in config.destinations:
        if each.release_share is not None and (each.release or config.results.release) is Release.SHADOW:
            key = f"destinations.{each.name}"
            yield f"{key}.release_share: {each.name} is in shadow: nothing is sent; write release: live, or no share"


def _messages_in_plain_text(config: Config) -> Iterator[str]:
    for each in config.destinations:
        if not isinstance(each, Hl7Destination) or each.tls is not None or each.allow_plaintext:
            continue
        if not is_loopback(each.host):
            yield (
                f"destinations.{each.name}.tls: is null and {each.host} is another machine: the patient's name would "
                "travel in plain text; write tls: {certificate: FILE, key: FILE, ca: FILE}, or allow_plaintext: true"
            )


def _readable(config: Config) -> Iterator[str]:
    """Results that others may read on their way."""
    for each in config.destinations:
        if isinstance(each, DicomDestination) or not each.allow_plaintext or is_loopback(each.host):
            continue
        secret, instead = "", "tls"
        if isinstance(each, HttpDestination):
            instead = "https"
            secret = ", and so does what authenticates us" if each.authentication is not None else ""
        yield f"destinations.{each.name}.allow_plaintext: results travel in plain text{secret}; write {instead}"


def _unprotected(store: AnyStore) -> Iterator[str]:
    if store.kind != "s3" or store.allow_plaintext or not (store.endpoint or "").startswith("http:"):
        return
    if not is_loopback(urlsplit(store.endpoint or "").hostname or ""):
        yield "spool.store.endpoint: is http: images would travel in plain text; write https, or allow_plaintext: true"


def _http(config: Config) -> Iterator[str]:
    for destination in config.destinations:
        if not isinstance(destination, HttpDestination):
            continue
        key = f"destinations.{destination.name}"
        yield from _by_http(key, destination)
        if config.web is not None and config.web.stow is not None and _is_our_door(destination, config.web):
            yield f"{key}.url: {destination.url} is the node's own web.stow; its results would come back to it"
        if isinstance(destination, DicomWebDestination):
            yield from _looked_for_too_late(destination, config.delivery.max_age_h)
    for worklist in config.worklists:
        if isinstance(worklist, UpsRsWorklist):
            yield from _by_http(f"worklists.{worklist.name}", worklist.server)


def _by_http(key: str, destination: HttpDestination) -> Iterator[str]:
    is_plain = destination.url.startswith("http:")
    if is_plain and not is_loopback(destination.host) and not destination.allow_plaintext:
        yield f"{key}.url: is http: results would travel in plain text; write https, or allow_plaintext: true"
    if is_plain and destination.tls is not None:
        yield f"{key}.tls: is of no use for {destination.url}; write https"
    asked = destination.authentication
    token_url = asked.token_url if asked is not None and asked.kind == "oauth2" else ""
    if token_url.startswith("http:") and not is_loopback(urlsplit(token_url).hostname or ""):
        yield f"{key}.authentication.token_url: is http: the secret would travel in plain text; write https"


def _looked_for_too_late(destination: DicomWebDestination, max_age_h: float) -> Iterator[str]:
    if destination.verify_h is not None and destination.verify_h >= max_age_h:
        yield (
            f"destinations.{destination.name}.verify_h: {destination.verify_h:g} is not less than delivery.max_age_h "
            f"({max_age_h:g}): what is lost would be given up before it is sent again"
        )


def _in_plain_text(listen: Listen) -> Iterator[str]:
    if is_exposed(listen) and not listen.allow_plaintext:
        yield (
            f"listen.tls: is null and other machines reach {_reached(listen)}: images would "
            "travel in plain text and an AE title alone would be trusted; write tls: {certificate: FILE, key: FILE, "
            "ca: FILE}, or host: 127.0.0.1, or allow_plaintext: true"
        )
    for number, peer in enumerate(listen.peers, 1):
        if peer.certificate and listen.tls is None:
            yield f"listen.peers.{number}.certificate: no caller shows a certificate without listen.tls"


def _open_page(web: Web) -> Iterator[str]:
    exposed, has_users = not is_loopback(web.host), web.users is not None or web.oidc is not None
    if exposed and not has_users:
        yield (
            f"web.users: is null and others than this machine reach {web.host or 'every address'}; write users: FILE, "
            "and add the first with `cxr-node user add NAME --role operator`, or write host: 127.0.0.1"
        )
    if web.proxies and not has_users:
        yield "web.users: is null and web.proxies passes others on to the page; write users: FILE"
    if (
        web.oidc is not None
        and web.oidc.issuer.startswith("http:")
        and not is_loopback(urlsplit(web.oidc.issuer).hostname or "")
    ):
        yield "web.oidc.issuer: is http: anybody on the way could log in as anybody; write https"
    for sender in web.stow.senders if web.stow is not None else ():
        if sender.certificate and (web.tls is None or web.tls.ca is None):
            yield f"web.stow.{sender.name}.certificate: nobody shows a certificate without web.tls.ca"
    if exposed and web.tls is None and not web.proxies:
        yield (
            "web.tls: is null and others than this machine reach the page: passwords would travel readable; write tls: "
            "{certificate: FILE, key: FILE}, or put a proxy with TLS before it and name it in web.proxies"
        )


def doubtful(config: Config) -> Iterator[str]:
    """What works and is dangerous all the same."""
    yield from _callers(config.listen)
    yield from _proxies(config.listen)
    yield from _times(config)
    yield from _studies(config)
    yield from _reports(config)
    spool, listen = config.spool, config.listen
    if spool.min_free_mib < listen.max_object_mib:
        yield (
            f"spool.min_free_mib: {spool.min_free_mib} leaves no room for one object of listen.max_object_mib "
            f"({listen.max_object_mib}): the disk could fill up, and the ledger with it; write 1024"
        )
    if config.work.max_attempts == 1:
        yield "work.max_attempts: 1 sets an image aside (DEAD) when the power fails while it is judged; write 3"
    yield from _readable(config)
    yield from _in_shadow(config)
    addresses = Counter(destination.where for destination in config.destinations)
    for address in (address for address, number in addresses.items() if number > 1):
        names = ", ".join(one.name for one in config.destinations if one.where == address)
        yield f"destinations: {names} are one archive, {address}: it would be sent the same object more than once"


def _in_shadow(config: Config) -> Iterator[str]:
    """It is meant, and must not be forgotten."""
    shares = {each.name: config.live_share(each) for each in config.destinations}
    if silent := [name for name, share in shares.items() if share == 0.0]:
        yield f"results.release: SHADOW: results for {', '.join(silent)} are kept and not sent (cxr-node shadow)"
    for name, share in shares.items():
        if 0.0 < share < 1.0:
            yield (
                f"results.release_share: SHADOW: of {100 * (1 - share):g} % of studies, results for {name} are kept "
                "and not sent (cxr-node shadow)"
            )


def _proxies(listen: Listen) -> Iterator[str]:
    for proxy in listen.proxy_protocol:
        if ipaddress.ip_network(proxy, strict=False).num_addresses > MANY_PROXIES:
            yield (
                f"listen.proxy_protocol: whoever is in {proxy} may call as any host of listen.peers, and no modality "
                "there can call by itself; name the load balancers"
            )


def _callers(listen: Listen) -> Iterator[str]:
    if listen.tls is not None:
        if not listen.peers:
            yield "listen.peers: is empty: every certificate of listen.tls.ca may call by any AE title; name callers"
        if believed := [peer.ae_title for peer in listen.peers if not peer.certificate]:
            yield (
                f"listen.peers: every certificate of listen.tls.ca may call as {', '.join(believed)}; name certificates"
            )
        return
    if not is_exposed(listen):
        return
    yield f"listen.allow_plaintext: images travel in plain text between {listen.host} and its callers; write tls"
    if not listen.peers:
        yield (
            f"listen.peers: is empty, and {listen.host} is reached from the network without TLS: everyone who "
            "reaches the port may store; name the callers"
        )
    elif anywhere := [peer.ae_title for peer in listen.peers if not peer.hosts]:
        yield f"listen.peers: {', '.join(anywhere)} may call from any host, and an AE title is not a secret; name hosts"


def _times(config: Config) -> Iterator[str]:
    if config.work.lease_s < SHORT_LEASE_S:
        yield (
            f"work.lease_s: {config.work.lease_s:g} is shorter than a slow image may take: a worker is restarted "
            f"after five leases, and the image set aside after three times; write 120, never below "
            f"{SHORT_LEASE_S:g}"
        )
    if config.listen.idle_timeout_s < SHORT_IDLE_S:
        yield (
            f"listen.idle_timeout_s: {config.listen.idle_timeout_s:g} cuts off a modality that pauses between two "
            "images; write 60"
        )
    if config.spool.retention_days < SHORT_RETENTION_DAYS:
        yield (
            f"spool.retention_days: after {config.spool.retention_days:g} days the bytes of an image that was set "
            "aside (DEAD) are gone, and `cxr-node retry` cannot revive it; write 3 or more"
        )
    if config.delivery.max_delay_s >= config.delivery.max_age_h * 3600:
        yield "delivery.max_delay_s: is longer than max_age_h: a delivery could die while it waits for its next try"


def _studies(config: Config) -> Iterator[str]:
    wanted, study = config.kinds(ReportPer.STUDY), config.study
    every = wanted | config.kinds(ReportPer.IMAGE)
    if config.results.normal_heatmap != "none" and ResultKind.HEATMAP not in every:
        yield (
            f"results.normal_heatmap: {config.results.normal_heatmap} asks for a picture of each NORMAL, and no "
            "destination is sent heatmap; add it to send"
        )
    if not wanted:
        if "study" in config.model_fields_set:
            yield "study: concerns reports of studies alone, and every destination has report_per: image"
        if config.priors is not None:
            yield "priors: are told in reports of studies alone, and every destination has report_per: image"
        return
    if config.priors is not None and not wanted & {ResultKind.REPORT, ResultKind.HL7, ResultKind.FHIR}:
        yield "priors: are told in the report, and no destination with report_per: study is sent report; add it to send"
    if study.quiet_s < SHORT_QUIET_S:
        yield (
            f"study.quiet_s: {study.quiet_s:g} reports a study before its next image is there, and each further image "
            "makes a report that replaces the one before; write 15"
        )
    longest_s = study.quiet_s if config.priors is None else study.max_wait_s
    if config.delivery.not_after_min is not None and 60 * config.delivery.not_after_min <= longest_s:
        key = "quiet_s" if config.priors is None else "max_wait_s, for which earlier radiographs are waited for"
        yield (
            f"delivery.not_after_min: {config.delivery.not_after_min:g} is not longer than study.{key}: reports of "
            "studies would be too late before they are made"
        )


def _reports(config: Config) -> Iterator[str]:
    """Most archives report on an association of their own: the listener must accept it."""
    listen, known = config.listen, {peer.ae_title for peer in config.listen.peers}
    for destination in config.destinations:
        if destination.kind != "dicom" or not destination.is_asked_to_commit:
            continue
        caller, called = destination.ae_title, destination.calling_ae_title or listen.ae_title
        if known and caller not in known:
            yield f"listen.peers: {caller} is none of them; commitment reports of {destination.name} are rejected"
        if listen.require_called_ae_title and called != listen.ae_title:
            yield (
                f"listen.require_called_ae_title: {destination.name} calls the node {called}: "
                f"its commitment reports are rejected; leave out its calling_ae_title, or write false"
            )


def _is_ours(address: Address, listen: Listen) -> bool:
    if address.port != listen.port:
        return False
    return address.host == listen.host or (is_loopback(address.host) and _takes_loopback(listen.host))


def _is_our_door(destination: HttpDestination, web: Web) -> bool:
    if urlsplit(destination.url).port != web.port:
        return False
    return destination.host == web.host or (is_loopback(destination.host) and _takes_loopback(web.host))


def is_exposed(listen: Listen) -> bool:
    """Whether images may cross a network in plain text."""
    return listen.tls is None and (bool(listen.proxy_protocol) or not is_loopback(listen.host))


def _reached(listen: Listen) -> str:
    """What other machines reach of the listener."""
    if is_loopback(listen.host):
        return f"{listen.host} through a proxy of listen.proxy_protocol"
    return listen.host or "every address"


def _takes_loopback(host: str) -> bool:
    return is_loopback(host) or host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host; of names, only those of every machine are known."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")
