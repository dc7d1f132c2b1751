"""Orthanc as DICOMweb server: results by STOW-RS, seen by QIDO-RS, read back by a client that is not ours."""

from __future__ import annotations

import io
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmwrite

from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.dicomweb import DicomWebLink
from cxr_node.node.deliver.link import ResultFile
from cxr_node.node.network import file_meta
from cxr_node.node.spool.spool import Area, Spool
from tests import builders
from tests.node import origin_servers
from tests.node.certificates import Authority
from tests.pacs.peers import DICOMWEB_PLUGIN, Node, Orthanc, need
from tests.pacs.test_commitment import deliveries, objects
from tests.patience import wait_until
from tests.processes import run

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(not DICOMWEB_PLUGIN.exists(), reason="apt-get install orthanc-dicomweb"),
]


def url(orthanc: Orthanc) -> str:
    return f"{orthanc.url}/dicom-web"


def encoded(read: Dataset) -> bytes:
    """A data set that a client has decoded, as a file would hold it."""
    file = io.BytesIO()
    dcmwrite(file, read, enforce_file_format=True)
    return bytes(file_meta.split(file.getvalue())[1])


def stored(node: Node) -> dict[str, bytes]:
    """Data sets of the results in the node's spool, by SOP Instance UID."""
    spool = Spool(node.spool)
    contents = [spool.read(Area.RESULTS, digest) for digest in spool.digests(Area.RESULTS)]
    return {uid: bytes(data_set) for uid, data_set in map(file_meta.split, contents)}


def seen(node: Node, uid: str) -> bool:
    return node.is_idle() and [row.commitment for row in node.story(uid).deliveries] == ["COMMITTED"] * 3


def test_results_go_are_seen_lost_and_sent_again(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    source = builders.radiograph()
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(source))
    uid, study = str(source.SOPInstanceUID), str(source.StudyInstanceUID)
    with Orthanc(tmp_path / "orthanc") as orthanc:
        cloud: dict[str, Any] = {"kind": "dicomweb", "name": "cloud", "url": url(orthanc)}
        cloud |= {"report_per": "image", "verify_h": 2 / 3600}
        node = Node(tmp_path / "node", [cloud], delivery={"first_delay_s": 0.5, "max_delay_s": 2})
        with node:
            done = run("storescu", "-R", "-aec", node.ae_title, "127.0.0.1", node.port, file)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: seen(node, uid), "three results, seen by QIDO-RS")
            rows = deliveries(node, uid)
            assert all(row["seen_again_at"] == row["committed_at"] is not None for row in rows)

            client = DICOMwebClient(url(orthanc))
            ours = stored(node)
            read = {one.SOPInstanceUID: encoded(one) for one in client.retrieve_study(study)}
            assert len(read) == 3
            assert read == {sop_instance_uid: ours[sop_instance_uid] for sop_instance_uid in read}

            (lost, instance), *_ = objects(orthanc).items()
            before = orthanc.file(instance)
            orthanc.delete(instance)
            asked = run(sys.executable, "-m", "cxr_node", "retry", uid, "--config", node.config)
            assert asked.returncode == 0, asked.stderr
            wait_until(lambda: lost in objects(orthanc), "the lost result, sent again")
            wait_until(lambda: seen(node, uid), "all of them, seen once more")
            assert orthanc.file(objects(orthanc)[lost]) == before
            assert orthanc.count() == 3
            probed = run(sys.executable, "-m", "cxr_node", "check", "--config", node.config)
            assert f"{url(orthanc)} answers QIDO-RS" in probed.stdout.replace("\n", " ")
    (story,) = node.json("trace", uid)
    told = [event["detail"] for event in story["events"] if event["what"] == "uncommitted"]
    assert [detail.partition(": ")[2] for detail in told] == ["not seen by QIDO-RS; sent again"]


def test_a_repeat_leaves_one_object(tmp_path: Path) -> None:
    source = builders.radiograph()
    content = builders.part10(source)
    again = ResultFile(sop_class_uid=str(source.SOPClassUID), size_bytes=len(content), content=content)
    with Orthanc(tmp_path / "orthanc") as orthanc:
        link = DicomWebLink(origin_servers.destination(url(orthanc), timeout_s=30.0))
        for _ in range(2):
            assert link.store(link.open([again])[0]).words.startswith("HTTP 200")
        link.close()
        assert orthanc.count() == 1


@pytest.mark.parametrize("name", ["wrong", "right"])
def test_a_password(tmp_path: Path, name: str) -> None:
    password = tmp_path / "password"
    password.write_text(name)
    password.chmod(0o600)
    more = {"AuthenticationEnabled": True, "RegisteredUsers": {"node": "right"}}
    with Orthanc(tmp_path / "orthanc", more=more) as orthanc:
        asked = {"kind": "basic", "user": "node", "password": str(password)}
        link = DicomWebLink(origin_servers.destination(url(orthanc), timeout_s=30.0, authentication=asked))
        try:
            told = link.probe()
        except DeliveryError as error:
            told = str(error)
        link.close()
    expected = {
        "right": "answers QIDO-RS, authentication basic accepted",
        "wrong": "HTTP 401: it does not accept our authentication",
    }
    assert told.endswith(expected[name])


MENDED_OPENSSL = """
struct ssl_st; struct x509_st;
struct x509_st *SSL_get1_peer_certificate(const struct ssl_st *of);
struct x509_st *SSL_get_peer_certificate(const struct ssl_st *of) { return SSL_get1_peer_certificate(of); }
"""
"""Debian 12's Orthanc dies of its first request over TLS, whoever asks: libcivetweb 1.15 looks in libssl.so for a name
that OpenSSL 3 does not have any more. Here it finds it, and behind it the genuine library."""


def mended_openssl(folder: Path) -> str:
    """Folder with a libssl.so that has the name; skips where none can be made."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler: apt-get install gcc")
    folder.mkdir()
    source, library = folder / "mended.c", folder / "libssl.so"
    source.write_text(MENDED_OPENSSL)
    command = [compiler, "-shared", "-fPIC", "-o", library, source, "-Wl,--no-as-needed", "-l:libssl.so.3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no OpenSSL 3 to link with: apt-get install libssl-dev ({done.stderr.strip()[-200:]})")
    return str(folder)


@contextmanager
def mutual(folder: Path, ours: Authority, theirs: Authority) -> Iterator[Orthanc]:
    """Orthanc with TLS, which lets in only whom `theirs` vouches for; its own certificate is of `ours`."""
    server, tests = ours.issue("orthanc", is_rsa=True), theirs.issue("tests")
    pair = folder / "orthanc-with-key.pem"
    pair.write_bytes(server.certificate.read_bytes() + server.key.read_bytes())
    called = ssl.create_default_context(cafile=ours.pem)
    called.load_cert_chain(tests.certificate, tests.key)
    more = {
        "SslEnabled": True,
        "SslCertificate": str(pair),
        "SslVerifyPeers": True,
        "SslTrustedClientCertificates": str(theirs.pem),
    }
    libraries = mended_openssl(folder / "openssl")
    with Orthanc(folder / "orthanc", more=more, tls=called, LD_LIBRARY_PATH=libraries) as orthanc:
        yield orthanc


def test_results_go_to_an_orthanc_that_asks_for_our_certificate(tmp_path: Path) -> None:
    need("storescu", "Orthanc")
    source = builders.radiograph()
    file = tmp_path / "one.dcm"
    file.write_bytes(builders.part10(source))
    hospital, servers = Authority(tmp_path, "hospital"), Authority(tmp_path, "servers")
    us = hospital.issue("node")
    with mutual(tmp_path, servers, hospital) as orthanc:
        tls = {"ca": str(servers.pem), "certificate": str(us.certificate), "key": str(us.key)}
        cloud: dict[str, Any] = {"kind": "dicomweb", "name": "cloud", "url": url(orthanc), "tls": tls}
        cloud |= {"report_per": "image", "verify_h": 2 / 3600}
        node = Node(tmp_path / "node", [cloud], delivery={"first_delay_s": 0.5, "max_delay_s": 2})
        with node:
            done = run("storescu", "-R", "-aec", node.ae_title, "127.0.0.1", node.port, file)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: seen(node, str(source.SOPInstanceUID)), "three results, seen by QIDO-RS over TLS")
            assert orthanc.count() == 3
            probed = run(sys.executable, "-m", "cxr_node", "check", "--config", node.config)
            assert f"{url(orthanc)} answers QIDO-RS" in probed.stdout.replace("\n", " ")


@pytest.mark.parametrize("shown", ["none", "of another authority", "right", "right, to a server of another authority"])
def test_who_shows_no_certificate_or_a_wrong_one_gets_nowhere(tmp_path: Path, shown: str) -> None:
    """It costs no object: the destination is tried again, for somebody must mend a certificate."""
    source = builders.radiograph()
    content = builders.part10(source)
    file = ResultFile(sop_class_uid=str(source.SOPClassUID), size_bytes=len(content), content=content)
    hospital, servers, strangers = (Authority(tmp_path, name) for name in ("hospital", "servers", "strangers"))
    of = strangers if shown == "of another authority" else hospital
    us = of.issue("node")
    tls = {"ca": str((strangers if "to a server" in shown else servers).pem)}
    tls |= {} if shown == "none" else {"certificate": str(us.certificate), "key": str(us.key)}
    with mutual(tmp_path, servers, hospital) as orthanc:
        link = DicomWebLink(origin_servers.destination(url(orthanc), timeout_s=10.0, tls=tls))
        try:
            told = link.store(link.open([file])[0]).words
        except DeliveryError as error:
            assert not error.permanent
            told = str(error)
        link.close()
        assert (orthanc.count() == 1) == (shown == "right")
    assert told.startswith("HTTP 200") == (shown == "right"), told
    assert shown == "right" or "TLS failed" in told or "connection was lost" in told, told
