"""Modalities and archives that send: each over associations of its own, again and again until it hears 0x0000."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydicom.uid import UID

from cxr_node.config.network import Address
from cxr_node.errors import DeliveryError
from cxr_node.tools import send
from tests import builders
from tests.chaos.accounting import Source
from tests.node.wire import data_set_of

SMALL, SOAK = (160, 144), (512, 512)
"""Rows and columns: what costs little, and what the soak sends."""
_ANSWER_S = 20.0
_PAUSE_S = 0.1


class Modality:
    """Writes radiographs and sends them; remembers what was acknowledged. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        address: Address,
        shape: tuple[int, int] = SMALL,
        pause_s: float = _PAUSE_S,
        answer_s: float = _ANSWER_S,
    ) -> None:
        """`pause_s` follows an association with failures; `answer_s` is how long an answer is waited for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.sources: dict[str, Source] = {}
        self.acknowledged: Counter[str] = Counter()
        """How often each SOP Instance was answered with 0x0000."""
        self.refused: Counter[int] = Counter()
        """Other statuses."""
        self.broken = 0
        """Associations that were refused or ended before every answer had come."""
        self.stop = threading.Event()
        """Set: what is not acknowledged by now is given up."""
        self.address = address
        """Of whom it calls next."""
        self._folder, self._pause_s, self._answer_s = folder, pause_s, answer_s
        self._stored = builders.chest(*shape)
        self._uids: dict[Path, str] = {}
        self._lock = threading.Lock()

    def take(self, *numbers: int, **attributes: object) -> list[Path]:
        """Write radiographs of these numbers to files; the same number is the same SOP Instance."""
        files = []
        for number in numbers:
            dataset = builders.radiograph(number, self._stored, **attributes)
            content = builders.part10(dataset)
            file = self._folder / f"{number:06d}.dcm"
            whole = file.with_suffix(f".{threading.get_ident()}")
            whole.write_bytes(content)
            whole.replace(file)  # another thread may be sending it just now
            files.append(file)
            digest = hashlib.sha256(data_set_of(content)).hexdigest()
            source = Source(
                sop_instance_uid=str(UID(dataset.SOPInstanceUID)),
                study_instance_uid=str(UID(dataset.StudyInstanceUID)),
                sha256=digest,
            )
            with self._lock:
                self.sources[source.sop_instance_uid] = source
                self._uids[file] = source.sop_instance_uid
        return files

    @property
    def files(self) -> list[Path]:
        """All that it wrote."""
        return list(self._uids)

    def uid(self, file: Path) -> str:
        """SOP Instance UID of what it wrote."""
        return self._uids[file]

    def copies(self, file: Path, number: int) -> list[Path]:
        """The same SOP Instance under other file names."""
        files = [file.with_name(f"{file.stem}-{copy:04d}.dcm") for copy in range(number)]
        for copy in files:
            copy.hardlink_to(file)
            self._uids[copy] = self._uids[file]
        return files

    def send(self, files: Iterable[Path], batch: int = 10) -> None:
        """Send every file until it is acknowledged, a batch over each association."""
        waiting = list(files)
        while waiting:
            now, waiting = waiting[:batch], waiting[batch:]
            while now and not self.stop.is_set():
                now = self._once(now)
                if now:
                    time.sleep(self._pause_s)

    @contextmanager
    def sending(self, files: list[Path], associations: int = 2, batch: int = 10) -> Iterator[None]:
        """Send in the background, over several associations at once; at the end of the block all is acknowledged."""
        parts = [files[start::associations] for start in range(associations)]
        with ThreadPoolExecutor(associations) as pool:
            running = [pool.submit(self.send, part, batch) for part in parts]
            try:
                yield
            except BaseException:
                self.stop.set()
                raise
            for future in running:
                future.result()

    def _once(self, files: list[Path]) -> list[Path]:
        """One association; what was not acknowledged."""
        left = dict.fromkeys(files)

        def arrived(sent: send.Sent) -> None:
            with self._lock:
                if sent.status == 0x0000:
                    del left[sent.path]
                    self.acknowledged[self._uids[sent.path]] += 1
                elif sent.status is not None:
                    self.refused[sent.status] += 1

        try:
            send.store(files, arrived, self.address, "MODALITY", self._answer_s)
        except DeliveryError:
            with self._lock:
                self.broken += 1
        return list(left)
