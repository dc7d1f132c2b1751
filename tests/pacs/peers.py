"""Real peers on free loopback ports: Orthanc as source and destination, DCMTK's tools, and the node itself.

Each is a context manager; nothing outlives it. Where a peer is not installed its tests skip and name the package.
"""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from tests.processes import Program, answers, children, configured, cxr_node, free_port, run, words_of

PACKAGES = {
    "Orthanc": "orthanc orthanc-dicomweb",
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "echoscu": "dcmtk",
    "dcmsend": "dcmtk",
    "dsrdump": "dcmtk",
    "dciodvfy": "dicom3tools",
    "chromium": "chromium",
    "haproxy": "haproxy",
}
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def need(*programs: str) -> None:
    """Skip, naming the package, where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")


class Orthanc(Program):
    """An archive that routes what it stores to its modalities, by the Lua rule it is given."""

    ae_title = "ORTHANC"

    def __init__(
        self,
        folder: Path,
        *,
        modalities: dict[str, tuple[str, int]] | None = None,
        rule: str = "",
        more: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
        **environment: str,
    ) -> None:
        """`tls` : what its HTTP server is called with, where `more` switches TLS on."""
        need("Orthanc")
        self._tls = tls
        self._storage = folder / "db"
        self.http_port, self.dicom_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "route.lua").write_text(rule)
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False,
            "OverwriteInstances": True,
            "LuaScripts": [str(folder / "route.lua")] if rule else [],
            "DicomModalities": {
                name: {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
                for name, (ae_title, port) in (modalities or {}).items()
            },
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        } | (more or {})
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        super().__init__(folder, "Orthanc", folder / "orthanc.json", **environment)

    @property
    def address(self) -> str:
        return f"{self.ae_title}@127.0.0.1:{self.dicom_port}"

    @property
    def url(self) -> str:
        """Of its HTTP server."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> Any:
        return json.loads(self._ask("GET", path))

    def file(self, instance: str) -> bytes:
        return self._ask("GET", f"/instances/{instance}/file")

    def delete(self, instance: str) -> None:
        self._ask("DELETE", f"/instances/{instance}")

    def post(self, path: str, content: bytes) -> Any:
        return json.loads(self._ask("POST", path, content))

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", content, method=method)
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:
            read: bytes = answer.read()
            return read

    def lose(self, sop_instance_uid: str) -> None:
        """Delete the file of an instance that its index goes on to list."""
        (instance,) = self.post("/tools/lookup", sop_instance_uid.encode())
        uuid = self.get(f"/instances/{instance['ID']}/attachments/dicom/info")["Uuid"]
        (self._storage / uuid[:2] / uuid[2:4] / uuid).unlink()

    def count(self) -> int:
        return int(self.get("/statistics")["CountInstances"])

    def is_ready(self) -> bool:
        return answers(self.http_port) and answers(self.dicom_port)


class Node(Program):
    """`cxr-node serve`, as a hospital runs it."""

    ae_title = "CXR_NODE"

    def __init__(self, folder: Path, destinations: list[dict[str, Any]], **sections: Any) -> None:
        self.port, self.spool, self.destinations, self.sections = free_port(), folder / "spool", destinations, sections
        self.config = folder / "node.yaml"
        super().__init__(folder, *cxr_node("serve", self.config), name="node")

    def with_destinations(self, destinations: list[dict[str, Any]]) -> Self:
        """Tell the node where to deliver, before it starts: peers that know each other need that."""
        self.destinations = destinations
        return self

    def start(self) -> None:
        configured(self.folder, "node", self.port, destinations=self.destinations, **self.sections)
        super().start()

    def is_ready(self) -> bool:
        assert " ended role=" not in self.said(), self.said()[-4000:]
        return answers(self.port)

    def json(self, *command: str) -> list[Any]:
        """What a `cxr-node ... --json` command of this node prints."""
        done = run(*cxr_node(command[0], self.config), *command[1:], "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def counts(self) -> dict[str, int]:
        """Instances in each state; a command that asks would cost a second each time."""
        with closing(Ledger.open(self.spool)) as ledger:
            return {state.value: number for state, number in queries.counts(ledger).items()}

    def story(self, uid: str) -> queries.Story:
        """What its ledger knows of one instance."""
        with closing(Ledger.open(self.spool)) as ledger:
            return queries.trace(ledger, uid)[0]

    def is_idle(self) -> bool:
        """Something came, and nothing waits to be judged or delivered."""
        seen = self.counts()
        return sum(seen.values()) > 0 and seen["RECEIVED"] == seen["REPORTED"] == 0

    def roles(self) -> dict[str, int]:
        """Process identifiers of receive, work and deliver, by role, as far as they live at this moment."""
        running = {pid: words_of(pid) for pid in children(self.process.pid)}
        return {role: pid for pid, words in running.items() for role in ("receive", "work", "deliver") if role in words}
