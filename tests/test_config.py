"""Every mistake in a configuration is named with its path; the shipped files say the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cxr_node import resources
from cxr_node.config import destinations, http, loader, monitoring, schema, storage, triage, worklists
from cxr_node.errors import ConfigError

SPOOL = {"spool": {"path": "/var/lib/cxr-node"}}
CLOUD = {"kind": "dicomweb", "name": "a", "url": "https://h/x"}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown section": ({**SPOOL, "destinatons": []}, "destinatons: unknown key; did you mean 'destinations'?"),
    "key": ({"spool": {"path": "x", "min_fre_mib": 1}}, "spool.min_fre_mib: unknown key; did you mean 'min_free_mib'?"),
    "unknown key in a list": (
        {**SPOOL, "destinations": [{"name": "a", "address": "A@h:1", "sent": []}]},
        "destinations.a.sent: unknown key; did you mean 'send'?",
    ),
    "missing": ({}, "spool: is missing"),
    "long AE": ({**SPOOL, "listen": {"ae_title": "X" * 17}}, "listen.ae_title: 'XXXXXXXXXXXXXXXXX' is not an AE title"),
    "AE title with backslash": ({**SPOOL, "listen": {"ae_title": "A\\B"}}, "listen.ae_title:"),
    "address without port": (
        {**SPOOL, "destinations": [{"name": "a", "address": "ORTHANC@host"}]},
        "write AE@host:port",
    ),
    "port too large": ({**SPOOL, "listen": {"port": 70000}}, "listen.port:"),
    "no such result object": (
        {**SPOOL, "destinations": [{"name": "a", "address": "A@h:1", "send": ["summary"]}]},
        "destinations.a.send.1:",
    ),
    "no such kind of destination": (
        {**SPOOL, "destinations": [{"kind": "fax", "name": "a", "address": "A@h:1"}]},
        "destinations.a: kind 'fax' is unknown; write one of: dicom",
    ),
    "a destination of another kind's keys": (
        {**SPOOL, "destinations": [CLOUD | {"address": "A@h:1"}]},
        "destinations.a.address: unknown key",
    ),
    "a URL with a query": (
        {**SPOOL, "destinations": [CLOUD | {"url": "https://h/x?key=1"}]},
        "destinations.a.url: is not the URL of a service; write https://HOST/PATH",
    ),
    "a URL that is a path": (
        {**SPOOL, "destinations": [CLOUD | {"url": "/dicom-web"}]},
        "destinations.a.url: is not the URL of a service",
    ),
    "a port that is none": (
        {**SPOOL, "destinations": [CLOUD | {"url": "https://h:99999"}]},
        "destinations.a.url:",
    ),
    "a certificate without its key": (
        {**SPOOL, "destinations": [CLOUD | {"tls": {"certificate": "c"}}]},
        "destinations.a.tls: certificate and key belong together",
    ),
    "no such authentication": (
        {**SPOOL, "destinations": [CLOUD | {"authentication": {"kind": "x"}}]},
        "destinations.a.authentication: kind 'x' is unknown; write one of: basic, bearer, oauth2",
    ),
    "a token in the file": (
        {**SPOOL, "destinations": [CLOUD | {"authentication": {"secret": "s"}}]},
        "destinations.a.authentication.token: is missing",
    ),
    "two of one name": (
        {**SPOOL, "destinations": [{"name": "a", "address": "A@h:1"}, {"name": "a", "address": "B@h:1"}]},
        "two destinations are named 'a'",
    ),
    "a word waited for no time": (
        {**SPOOL, "destinations": [{"name": "a", "address": "A@h:1", "commitment_wait_h": 0}]},
        "destinations.a.commitment_wait_h:",
    ),
    "rows that go before their bytes": (
        {"spool": {"path": "x", "retention_days": 30, "history_days": 29}},
        "spool: history_days must not be less than retention_days",
    ),
    "a SHA-1 fingerprint": (
        {**SPOOL, "listen": {"peers": [{"ae_title": "A", "certificate": ["AB:" * 19 + "AB"]}]}},
        "is not a SHA-256 fingerprint: 64 hexadecimal digits",
    ),
    "an empty name": (
        {**SPOOL, "listen": {"peers": [{"ae_title": "A", "certificate": [" "]}]}},
        "listen.peers.1.certificate.1: is empty; write a name",
    ),
    "audit without TLS": ({**SPOOL, "audit": {"syslog": {"host": "arr"}}}, "audit.syslog.tls: is missing"),
    "audit source with a space": ({**SPOOL, "audit": {"source_id": "a b"}}, "audit.source_id:"),
    "log format": ({**SPOOL, "log": {"format": "xml"}}, "log.format:"),
    "abstention band": ({**SPOOL, "alerts": {"abstention_band": [0.3, 0.1]}}, "alerts: abstention_band: the"),
    "negative retention": ({"spool": {"path": "x", "retention_days": -1}}, "spool.retention_days:"),
    "no such kind of store": (
        {"spool": {"path": "x", "store": {"kind": "tape"}}},
        "spool.store: kind 'tape' is unknown; write one of: file, posix, s3",
    ),
    "a share without a path": ({"spool": {"path": "x", "store": {"kind": "posix"}}}, "spool.store.path: is missing"),
    "a bucket of another kind's keys": (
        {"spool": {"path": "x", "store": {"kind": "s3", "bucket": "b-1", "credentials": "c", "path": "p"}}},
        "spool.store.path: unknown key",
    ),
    "a bucket without a name": (
        {"spool": {"path": "x", "store": {"kind": "s3", "credentials": "c"}}},
        "spool.store.bucket: is missing",
    ),
    "an endpoint that is no URL": (
        {"spool": {"path": "x", "store": {"kind": "s3", "bucket": "b-1", "credentials": "c", "endpoint": "s3:9000"}}},
        "spool.store.endpoint:",
    ),
    "a bucket in plain text": (
        {
            "spool": {
                "path": "x",
                "store": {"kind": "s3", "bucket": "b-1", "credentials": "c", "endpoint": "http://s3.example.org"},
            }
        },
        "spool.store.endpoint: is http: images would travel in plain text",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_with_its_path(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loader.parse(content, "node.yaml")
    assert any(sentence in line and line.startswith("node.yaml: ") for line in raised.value.mistakes)
    assert all("\n" not in line for line in raised.value.mistakes)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        loader.parse({"listen": {"prt": 1, "ae_title": ""}, "spol": {}})
    assert len(raised.value.mistakes) == 4  # prt, ae_title, spol, and spool is missing


def test_node_yaml_shows_every_key_with_its_default() -> None:
    example = loader.load(resources.bundled("config") / "node.yaml")
    pacs = {"name": "pacs", "address": "ORTHANC@127.0.0.1:4242"}
    assert example == loader.parse({"spool": {"path": "/var/lib/cxr-node"}, "destinations": [pacs]})
    text = (resources.bundled("config") / "node.yaml").read_text()
    sections = (
        schema.Listen,
        schema.SpoolSection,
        storage.S3Store,
        schema.Model,
        schema.Admission,
        schema.Results,
        triage.Triage,
        destinations.DicomDestination,
        destinations.DicomWebDestination,
        destinations.Hl7Destination,
        destinations.FhirDestination,
        worklists.UpsWorklist,
        worklists.UpsRsWorklist,
        http.HttpTls,
        http.BasicAuthentication,
        http.BearerAuthentication,
        http.OAuth2Authentication,
        monitoring.LogSection,
        monitoring.AlertsSection,
    )
    for section in (*sections, schema.AuditSection, schema.Syslog):
        for key in section.model_fields:
            assert f"{key}:" in text, f"{key} is not shown in node.yaml"


def test_a_destination_without_a_kind_is_of_kind_dicom() -> None:
    there = {"name": "pacs", "address": "ORTHANC@127.0.0.1:4242"}
    without, named = (loader.parse({**SPOOL, "destinations": [each]}) for each in (there, there | {"kind": "dicom"}))
    assert without == named
    (to,) = named.destinations
    assert (to.kind, to.where, to.host, to.ae_title) == ("dicom", "ORTHANC@127.0.0.1:4242", "127.0.0.1", "ORTHANC")


def test_the_issue_s_whole_configuration_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(
        "listen: {ae_title: CXR_NODE, host: 127.0.0.1, port: 11112}\n"
        "spool: {path: /var/lib/cxr-node}\n"
        "model: {profile: pneumonia-pediatric}\n"
        "destinations:\n"
        '  - {name: pacs, address: "ORTHANC@127.0.0.1:4242", send: [report, measurements, heatmap]}\n'
    )
    assert str(loader.load(file).destinations[0].address) == "ORTHANC@127.0.0.1:4242"


@pytest.mark.parametrize("text", ["a: [", "- a list", "\x00", ""])
def test_what_is_no_configuration_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        loader.load(file)


def test_only_what_changes_an_answer_changes_the_digest() -> None:
    plain = loader.parse(SPOOL)
    elsewhere = loader.parse({"spool": {"path": "/other"}, "listen": {"port": 104}})
    stricter = loader.parse({**SPOOL, "admission": {"min_size_px": 256}})
    assert plain.answer_sha256 == elsewhere.answer_sha256 != stricter.answer_sha256


def test_ipv6_address() -> None:
    parsed = loader.parse({**SPOOL, "destinations": [{"name": "a", "address": "PACS@[::1]:104"}]})
    assert parsed.destinations[0].address.host == "::1"


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("XR1.Example.org", "xr1.example.org"),
        ("10.0.0.5", "10.0.0.5"),
        ("2001:0DB8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
        (":".join(["0A"] * 32), "0a" * 32),
        ("0a" * 32, "0a" * 32),
        ("x-ray room 1", "x-ray room 1"),
    ],
)
def test_fingerprints_and_names_are_compared_in_one_form(written: str, compared: str) -> None:
    assert schema.Peer(ae_title="A", certificate=(written,)).certificate == (compared,)
