"""Orthanc as DICOMweb server: results by STOW-RS, seen by QIDO-RS, read back by a client that is not ours."""

from __future__ import annotations

import io
import sys
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
from tests.pacs.peers import DICOMWEB_PLUGIN, Node, Orthanc, need
from tests.pacs.test_commitment import deliveries, objects
from tests.patience import wait_until
from tests.processes import run

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(not DICOMWEB_PLUGIN.exists(), reason="apt-get install orthanc-dicomweb"),
]


def url(orthanc: Orthanc) -> str:
    return f"http://127.0.0.1:{orthanc.http_port}/dicom-web"


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
    """Without TLS: Debian's Orthanc 1.10.1 dies of the first request over it, whoever asks."""
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
