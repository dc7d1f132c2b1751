"""Values that are wrong together stop the node; dangerous ones are warned of, each with what to write instead."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from cxr_node.config import consistency, loader
from cxr_node.diagnose import check
from cxr_node.errors import ConfigError
from cxr_node.node.receive import server

SPOOL = {"spool": {"path": "/var/lib/cxr-node"}}
PACS = {"name": "a", "address": "A@10.0.0.5:104"}
OF_IMAGES = PACS | {"report_per": "image"}
NO_PICTURE = PACS | {"send": ["report"]}
ASKED = PACS | {"commitment_wait_h": 24}
TLS = {"certificate": "node.pem", "key": "node.key", "ca": "ca.pem"}


PLAIN = {"host": "0.0.0.0", "allow_plaintext": True}
XR1 = {"ae_title": "XR1", "hosts": ["10.0.0.1"]}


def to(address: str, **listen: object) -> dict[str, Any]:
    return {"listen": {"port": 11112, **listen}, "destinations": [{"name": "a", "address": address}]}


@pytest.mark.parametrize(
    "sections",
    [
        to("CXR_NODE@127.0.0.1:11112"),
        to("OTHER@localhost:11112"),
        to("CXR_NODE@[::1]:11112", host="0.0.0.0"),
        to("CXR_NODE@10.0.0.9:11112", host="10.0.0.9"),
    ],
)
def test_the_node_s_own_listener_is_no_destination(sections: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"destinations\.a\.address: .* is the node's own listener"):
        loader.parse(SPOOL | sections)


@pytest.mark.parametrize(
    "sections",
    [
        to("A@127.0.0.1:4242"),
        to("A@10.0.0.5:11112", host="0.0.0.0", tls=TLS),
        to("A@127.0.0.1:11112", host="10.0.0.9", tls=TLS),
    ],
)
def test_another_listener_is_one(sections: dict[str, Any]) -> None:
    assert len(loader.parse(SPOOL | sections).destinations) == 1


@pytest.mark.parametrize(
    ("delivery", "sentence"),
    [
        ({"first_delay_s": 60, "max_delay_s": 30}, "first_delay_s: 60 is more than max_delay_s, 30"),
        ({"first_delay_s": 1800, "max_age_h": 0.5}, "max_age_h: 0.5 ends before the first repeat"),
    ],
)
def test_times_that_contradict_each_other_are_refused(delivery: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loader.parse(SPOOL | {"delivery": delivery})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.9", "cxr.example.org"])
def test_plain_text_beyond_this_machine_must_be_written(host: str) -> None:
    with pytest.raises(
        ConfigError, match=r"listen\.tls: is null and other machines .* write tls: .* allow_plaintext: true"
    ):
        loader.parse(SPOOL | {"listen": {"host": host}})
    assert loader.parse(SPOOL | {"listen": {"host": host, "allow_plaintext": True}}).listen.tls is None
    assert loader.parse(SPOOL | {"listen": {"host": host, "tls": TLS}}).listen.tls is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_plain_text_on_this_machine_needs_no_word(host: str) -> None:
    assert loader.parse(SPOOL | {"listen": {"host": host}}).listen.host == host


def test_a_certificate_without_tls_is_shown_by_nobody() -> None:
    with pytest.raises(ConfigError, match=r"listen\.peers\.1\.certificate: no caller shows a certificate"):
        loader.parse(SPOOL | {"listen": {"peers": [XR1 | {"certificate": ["xr1.example.org"]}]}})


CLOUD = {"kind": "dicomweb", "name": "c", "url": "https://pacs.example.org/dicom-web"}
PLAIN_CLOUD = CLOUD | {"url": "http://pacs.example.org/dicom-web"}
CLIENT = {"kind": "oauth2", "token_url": "http://login.example.org/token", "client_id": "c", "client_secret": "s"}


@pytest.mark.parametrize(
    ("cloud", "sentence"),
    [
        (PLAIN_CLOUD, r"destinations\.c\.url: is http: results would travel in plain text"),
        (
            PLAIN_CLOUD | {"allow_plaintext": True, "tls": {"ca": "ca.pem"}},
            r"destinations\.c\.tls: is of no use for http",
        ),
        (CLOUD | {"authentication": CLIENT}, r"destinations\.c\.authentication\.token_url: is http: the secret would"),
        (CLOUD | {"verify_h": 72}, r"destinations\.c\.verify_h: 72 is not less than delivery\.max_age_h \(72\)"),
    ],
)
def test_a_dicomweb_destination_that_is_refused(cloud: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loader.parse(SPOOL | {"destinations": [cloud]})


def test_on_this_machine_http_needs_no_word() -> None:
    local = CLIENT | {"token_url": "http://127.0.0.1:8080/token"}
    cloud = CLOUD | {"url": "http://localhost:8042/dicom-web/", "authentication": local}
    (parsed,) = loader.parse(SPOOL | {"destinations": [cloud]}).destinations
    assert (parsed.where, parsed.host, parsed.ae_title) == ("http://localhost:8042/dicom-web", "localhost", "")


DOUBTFUL: dict[str, dict[str, Any]] = {
    "destinations.c.allow_plaintext: results travel in plain text; write https": {
        "destinations": [PLAIN_CLOUD | {"allow_plaintext": True}]
    },
    "destinations.c.allow_plaintext: results travel in plain text, and so does what": {
        "destinations": [PLAIN_CLOUD | {"allow_plaintext": True, "authentication": {"token": "t"}}]
    },
    "listen.allow_plaintext: images travel in plain text": {"listen": PLAIN | {"peers": [XR1]}},
    "listen.peers: is empty, and 0.0.0.0": {"listen": PLAIN},
    "listen.peers: CT1 may call from any host": {"listen": PLAIN | {"peers": [{"ae_title": "CT1"}, XR1]}},
    "listen.peers: is empty: every certificate": {"listen": {"host": "::", "tls": TLS}},
    "listen.peers: every certificate of listen.tls.ca may call as XR1": {"listen": {"tls": TLS, "peers": [XR1]}},
    "listen.proxy_protocol: whoever is in 10.0.0.0/8": {
        "listen": PLAIN | {"peers": [XR1], "proxy_protocol": ["10.0.0.0/8"]}
    },
    "work.lease_s: 10 is shorter": {"work": {"lease_s": 10}},
    "work.max_attempts: 1 sets": {"work": {"max_attempts": 1}},
    "spool.min_free_mib: 0 leaves no room": {"spool": {"path": "x", "min_free_mib": 0}},
    "spool.min_free_mib: 1024 leaves no room": {"listen": {"max_object_mib": 2048}},
    "spool.retention_days: after 0 days": {"spool": {"path": "x", "retention_days": 0}},
    "listen.idle_timeout_s: 2 cuts off": {"listen": {"idle_timeout_s": 2}},
    "delivery.max_delay_s: is longer": {"delivery": {"max_age_h": 0.4}},
    "listen.peers: A is none of them": {"listen": {"peers": [{"ae_title": "B"}]}, "destinations": [ASKED]},
    "listen.require_called_ae_title: a calls the node OTHER": {"destinations": [ASKED | {"calling_ae_title": "OTHER"}]},
    "results.normal_heatmap: banner asks": {"results": {"normal_heatmap": "banner"}, "destinations": [NO_PICTURE]},
    "study: concerns": {"study": {"quiet_s": 30}, "destinations": [OF_IMAGES]},
    "priors: are told in reports of studies": {"priors": {"from": "a"}, "destinations": [OF_IMAGES]},
    "priors: are told in the report": {"priors": {"from": "a"}, "destinations": [PACS | {"send": ["heatmap"]}]},
    "study.quiet_s: 1 reports a study before": {"study": {"quiet_s": 1}},
    "delivery.not_after_min: 0.25 is not longer than study.quiet_s": {"delivery": {"not_after_min": 0.25}},
    "delivery.not_after_min: 2 is not longer than study.max_wait_s": {
        "delivery": {"not_after_min": 2},
        "priors": {"from": "a"},
        "destinations": [PACS],
    },
    "destinations: a, b are one archive": {"destinations": [PACS, PACS | {"name": "b"}]},
}


@pytest.mark.parametrize(("sentence", "sections"), DOUBTFUL.items(), ids=DOUBTFUL)
def test_what_is_dangerous_is_warned_of(sentence: str, sections: dict[str, Any]) -> None:
    found = list(consistency.doubtful(loader.parse(SPOOL | sections)))
    assert [one.startswith(sentence) for one in found].count(True) == 1
    assert len(found) == 1 or "listen.allow_plaintext" in found[0]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"destinations": [PACS, PACS | {"name": "b", "address": "B@10.0.0.5:104"}]},
        {"listen": {"host": "0.0.0.0", "tls": TLS, "peers": [XR1 | {"certificate": ["xr1.example.org"]}]}},
        {"listen": {"peers": [{"ae_title": "A"}]}, "destinations": [ASKED]},
        {"listen": {"peers": [{"ae_title": "B"}]}, "destinations": [PACS]},
        {"results": {"normal_heatmap": "map"}, "destinations": [PACS]},
        {"priors": {"from": "a"}, "destinations": [OF_IMAGES, PACS | {"name": "b", "address": "B@10.0.0.5:104"}]},
        {"delivery": {"not_after_min": 2}, "destinations": [PACS]},
        {"delivery": {"not_after_min": 0.1}, "destinations": [OF_IMAGES]},
    ],
)
def test_a_sound_configuration_is_not_warned_of(sections: dict[str, Any]) -> None:
    assert list(consistency.doubtful(loader.parse(SPOOL | sections))) == []


def test_check_warns_and_stays_content(tmp_path: Path) -> None:
    settings = loader.parse({"spool": {"path": str(tmp_path), "min_free_mib": 0}, "listen": {"port": 0}})
    warned = [line for line in check.check(settings, "node.yaml") if line.warning]
    assert any(line.figure.startswith("spool.min_free_mib: 0") for line in warned)
    assert all(line.ok and check.as_json(line)["warning"] for line in warned)


def test_check_refuses_a_spool_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.disk, "kind", lambda _: "nfs4")
    settings = loader.parse({"spool": {"path": str(tmp_path)}, "listen": {"port": 0}})
    (line,) = (line for line in check.check(settings, "node.yaml") if line.subject == "spool")
    assert (line.ok, "another machine (nfs4)" in line.figure) == (False, True)


def test_the_receiver_says_it_when_it_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = loader.parse({"spool": {"path": str(tmp_path / "s"), "min_free_mib": 0}, "listen": {"port": 0}})
    stop = threading.Event()
    stop.set()
    hooks = server.Hooks(stop=stop, ready=lambda _: None)
    with caplog.at_level(logging.WARNING, "cxr_node"):
        server.serve(settings, lambda _: None, ("1.2.840.10008.1.2",), hooks)  # type: ignore[arg-type,return-value]
    assert any("configuration spool.min_free_mib: 0" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"results": {"release": "shadow", "release_share": 0.2}}, "results.release_share"),
        (
            {"results": {"release": "shadow"}, "destinations": [PACS | {"release_share": 0.2}]},
            "destinations.a.release_share",
        ),
        ({"destinations": [PACS | {"release": "shadow", "release_share": 0.2}]}, "destinations.a.release_share"),
    ],
)
def test_a_share_of_what_is_not_sent_is_refused(sections: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: .* nothing is sent; write release: live, or no share"):
        loader.parse(SPOOL | sections)


def test_a_node_in_shadow_is_said_to_be() -> None:
    dark = loader.parse(SPOOL | {"results": {"release": "shadow"}, "destinations": [PACS]})
    assert any(": SHADOW: results for a are kept and not sent" in said for said in consistency.doubtful(dark))
    part = loader.parse(SPOOL | {"results": {"release_share": 0.2}, "destinations": [PACS]})
    assert any("SHADOW: of 80 % of studies, results for a are kept" in said for said in consistency.doubtful(part))
    live = loader.parse(SPOOL | {"destinations": [PACS]})
    assert not any("SHADOW" in said for said in consistency.doubtful(live))
