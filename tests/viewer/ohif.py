"""OHIF as a hospital would serve it: static files at /, DICOMweb of one archive under /dicom-web, same origin."""

from __future__ import annotations

import http.client
import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

DICOM_WEB = "/dicom-web"
CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "Archive",
                "name": "archive",
                "wadoUriRoot": DICOM_WEB,
                "qidoRoot": DICOM_WEB,
                "wadoRoot": DICOM_WEB,
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "staticWado": True,
                "singlepart": "bulkdata,video",
                "omitQuotationForMultipartRequest": True,
                "acceptHeader": ["multipart/related; type=application/octet-stream; transfer-syntax=*"],
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            },
        }
    ],
}
"""In place of the package's own app-config.js, which points to a public server. As OHIF's documents give it for
Orthanc; the dialogue about investigational use is off, for it would cover what is asserted."""

TYPES = mimetypes.MimeTypes()
TYPES.add_type("application/wasm", ".wasm")
TYPES.add_type("text/javascript", ".js")


@contextmanager
def served(folder: Path, archive_port: int) -> Iterator[str]:
    """Serve the viewer in front of the archive; gives the address."""
    handler = type("Bound", (_Handler,), {"folder": folder.resolve(), "archive_port": archive_port})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    folder: Path
    archive_port: int

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"{DICOM_WEB}/"):
            self._ask_archive()
        elif path == "/app-config.js":
            self._reply(200, "text/javascript", f"window.config = {json.dumps(CONFIGURATION)};".encode())
        else:
            file = (self.folder / path.lstrip("/")).resolve()
            if not file.is_relative_to(self.folder) or not file.is_file():
                file = self.folder / "index.html"  # the address belongs to the single page
            self._reply(200, TYPES.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes())

    def do_POST(self) -> None:
        self._ask_archive()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the library
        """Say nothing."""

    def _ask_archive(self) -> None:
        """Host is kept, for Orthanc builds the addresses in its answers from it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        kept = {name: self.headers[name] for name in ("Accept", "Content-Type", "Host") if name in self.headers}
        upstream = http.client.HTTPConnection("127.0.0.1", self.archive_port, timeout=60)
        try:
            upstream.request(self.command, self.path, body, kept)
            answer = upstream.getresponse()
            content = answer.read()
            self._reply(answer.status, answer.getheader("Content-Type") or "application/octet-stream", content)
        finally:
            upstream.close()

    def _reply(self, status: int, content_type: str, content: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:  # the browser went on to another page
            self.close_connection = True
