"""A small recording PACS: a Storage SCP that keeps what it gets in one folder. For the demo and for tests.

Not for hospitals: no ledger, no limits. It writes each object to a temporary name first, so that
whoever looks at the folder sees whole objects only.
"""

from __future__ import annotations

import threading
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.transport import ThreadedAssociationServer

from cxr_node.config.schema import Address

TURN_S = 0.02
"""How often the server looks whether it shall stop; pynetdicom's own start_server looks twice a second."""


def close(server: ThreadedAssociationServer) -> None:
    """Stop a server made by `make_server`; pynetdicom's own shutdown wants one made by `start_server`."""
    BaseServer.shutdown(server)
    server.server_close()


class Recorder:
    """Context manager; listens on a free loopback port and counts what was stored, repeats included."""

    def __init__(self, folder: Path | None, ae_title: str = "RECORDER") -> None:
        self.folder = folder
        """None: what is stored is counted, and not kept."""
        self.ae_title = ae_title
        self.stored: list[str] = []
        """SOP Instance UIDs in the order of their arrival."""
        self._arrived = threading.Condition()

    def __enter__(self) -> Recorder:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        entity = AE(self.ae_title)
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context("1.2.840.10008.1.1")
        entity.maximum_pdu_size = 131072
        self._server = entity.make_server(
            ("127.0.0.1", 0),
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
            server_class=ThreadedAssociationServer,
        )
        threading.Thread(target=self._server.serve_forever, args=(TURN_S,), daemon=True).start()
        self.address = Address(ae_title=self.ae_title, host="127.0.0.1", port=self._server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self._server)

    def wait(self, count: int, timeout_s: float) -> bool:
        """Wait until so many objects have been stored; False when time is up."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.stored) >= count, timeout_s)

    def path(self, sop_instance_uid: str) -> Path:
        """Where an object is kept."""
        assert self.folder is not None  # noqa: S101 - who keeps nothing is not asked for it
        return self.folder / f"{sop_instance_uid}.dcm"

    def _store(self, event: Event) -> int:
        uid = str(event.file_meta.MediaStorageSOPInstanceUID)
        if self.folder is not None:
            temporary = self.folder / f".{uid}.{threading.get_ident()}"
            temporary.write_bytes(event.encoded_dataset())
            temporary.replace(self.path(uid))
        with self._arrived:
            self.stored.append(uid)
            self._arrived.notify_all()
        return 0x0000
