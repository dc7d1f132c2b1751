"""Fetches earlier radiographs of a patient from an archive: C-FIND, then C-GET, on one association with an end in time.

What cannot be fetched is a value with a reason: a report does without it. No sentence here holds patient data, for it
goes to logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pynetdicom import _config, build_role, dsutils, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation, AssociationSocket

from cxr_node.config.destinations import DicomDestination
from cxr_node.errors import CxrNodeError, DeliveryError, UnreachableError
from cxr_node.node.network.association import (
    EXPLICIT,
    IMPLICIT,
    Entity,
    TlsArguments,
    TlsClient,
    ask,
    associate,
    broken,
    deadline,
    end,
    fault,
    said,
)
from cxr_node.node.network.rejections import Cause, Refusals
from cxr_node.node.network.statuses import SUCCESS, Response
from cxr_node.node.priors import query
from cxr_node.node.priors.inbox import Inbox, RetrieveProvider
from cxr_node.node.priors.query import NotFetched, Reason, Ref, Study, Wanted
from cxr_node.node.process.logs import describe
from cxr_node.node.spool.part import Part

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
"""Study Root Query/Retrieve Information Model (PS3.4 C.6.2)."""
MAX_ANSWERS = 500
"""To one query; who has more is not asked on, for the newest may be among those that were not read."""
MAX_STUDIES, MAX_SERIES, MAX_TRIED = 8, 20, 4
"""Studies that are looked at, series of each that are, and instances of each that are tried."""
_PENDING = (0xFF00, 0xFF01)
_FAILED_IN_PART = 0xB000
_REFUSED = {Response.C_FIND: Reason.CANNOT_QUERY, Response.C_GET: Reason.CANNOT_RETRIEVE}
_LEAST_S = 0.05
_STEPS = 5  # of opening an association: connection, TLS, answer, and the diagnosis of a failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An earlier radiograph, complete and unread: its header must be compared with the patient's before it is used."""

    ref: Ref
    part: Part
    """A Part 10 file that is not stored yet: the caller stores it, or discards it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How much is fetched, and until when."""

    studies: int
    years: float
    max_object_bytes: int
    ends_at: float
    """On the clock of `time.monotonic`; all of it has ended then."""

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.ends_at - time.monotonic()


class NotFetchedError(CxrNodeError):
    """Inside this module: what is to be answered instead of an object."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        self.value = NotFetched(reason=reason, sentence=sentence)
        super().__init__(sentence)


class PriorScu:
    """Asks one archive. For one thread.

    Parameters
    ----------
    node_ae_title : how the node calls itself where the destination does not say otherwise
    transfer_syntaxes : of objects, the preferred first
    """

    def __init__(
        self,
        source: DicomDestination,
        node_ae_title: str,
        transfer_syntaxes: Sequence[str],
        refusals: Refusals | None = None,
    ) -> None:
        self._source = source
        self._ae_title = source.calling_ae_title or node_ae_title
        self._syntaxes = transfer_syntaxes
        self._tls = TlsClient(source)
        self._refusals = refusals

    def fetch(self, wanted: Wanted, order: Order, begin: Callable[[], Part]) -> list[Fetched | NotFetched]:
        """Fetch the newest frontal radiograph of each of the newest earlier studies, the newest study first.

        Parameters
        ----------
        begin : opens a file, as `Spool.begin` does
        """
        if words := wanted.why_not():
            return [NotFetched(reason=Reason.NOT_ASKED, sentence=words)]
        if order.left_s <= 0:
            return [NotFetched(reason=Reason.TIMEOUT, sentence="there was no time left to ask the source")]
        return self._all(order, lambda archive: _each(archive, wanted, order, begin))

    def retrieve(self, refs: Sequence[Ref], order: Order, begin: Callable[[], Part]) -> list[Fetched | NotFetched]:
        """Fetch these radiographs, each that can be; `order` says how large an object may be, and until when."""
        return self._all(order, lambda archive: (archive.get_first([ref], begin) for ref in refs))

    def _all(
        self, order: Order, each: Callable[[Archive], Iterator[Fetched | NotFetched]]
    ) -> list[Fetched | NotFetched]:
        """What came until the archive broke off, and why it did."""
        found: list[Fetched | NotFetched] = []
        try:
            with closing(self._open(order)) as archive:
                for one in each(archive):
                    found.append(one)
        except NotFetchedError as error:
            found.append(error.value)
        except CxrNodeError as error:
            found.append(NotFetched(reason=Reason.FAULT, sentence=str(error)))
        except Exception as error:  # a fault of ours must not end who waits for the report of a study
            found.append(NotFetched(reason=Reason.FAULT, sentence=describe(error)))
        return found

    def probe(self) -> str:
        """Say in one sentence that the source can be asked (`cxr-node check`).

        Raises
        ------
        DeliveryError : it cannot, and why.
        """
        ends_at = time.monotonic() + _STEPS * min(self._source.timeout_s, 5.0)
        try:
            with closing(self._open(Order(studies=1, years=1, max_object_bytes=0, ends_at=ends_at))) as archive:
                archive.require_get()
        except NotFetchedError as error:
            raise DeliveryError(str(error), permanent=False) from error
        return f"{self._source.address} takes C-FIND and C-GET"

    def _open(self, order: Order) -> Archive:
        return Archive(self._source, self._ae_title, self._syntaxes, self._tls, order, self._refusals)


def _each(archive: Archive, wanted: Wanted, order: Order, begin: Callable[[], Part]) -> Iterator[Fetched | NotFetched]:
    studies, otherwise = query.earlier(archive.find(query.of_patient(wanted, order.years)), wanted, order.years)
    if not studies:
        yield otherwise
        return
    number = 0
    for study in studies[:MAX_STUDIES]:
        if number == order.studies:
            return
        if refs := archive.candidates(study):
            number += 1
            yield archive.get_first(refs, begin)
    if not number:
        yield NotFetched(reason=Reason.NOT_FOUND, sentence="no earlier study has a frontal radiograph to retrieve")


class _Entity(Entity):
    """Opens associations whose objects go to an inbox."""

    inbox: Inbox

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: TlsArguments | None
    ) -> AssociationSocket:
        assoc.dimse = RetrieveProvider(assoc, self.inbox)
        return super()._create_socket(assoc, address, tls_args)


class Archive:
    """One association.

    Raises
    ------
    NotFetchedError : from every method: there is no answer that can be used.
    """

    def __init__(
        self,
        source: DicomDestination,
        ae_title: str,
        syntaxes: Sequence[str],
        tls: TlsClient,
        order: Order,
        refusals: Refusals | None,
    ) -> None:
        self._order = order
        self._inbox = Inbox(order.max_object_bytes)
        self._message_id = 0
        limit_s = max(_LEAST_S, min(source.timeout_s, order.left_s / _STEPS))
        self._source = source.model_copy(update={"timeout_s": limit_s})
        self._silence_s = source.timeout_s
        self._entity = _Entity(ae_title, limit_s, refusals)
        self._entity.inbox = self._inbox
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # they name a patient
        contexts = [build_context(uid, [EXPLICIT, IMPLICIT]) for uid in (FIND, GET)]
        contexts += [build_context(uid, syntax) for uid in query.SOP_CLASSES for syntax in syntaxes]
        roles = [build_role(uid, scp_role=True) for uid in query.SOP_CLASSES]
        handlers: Any = [(evt.EVT_C_STORE, self._inbox.stored)]
        try:
            self._association = associate(self._entity, self._source, contexts, tls, handlers, roles)
        except UnreachableError as error:
            raise NotFetchedError(Reason.UNREACHABLE, str(error)) from error
        except DeliveryError as error:
            raise NotFetchedError(Reason.CANNOT_QUERY, str(error)) from error
        if not self._accepts(FIND):
            self.close()
            raise NotFetchedError(Reason.CANNOT_QUERY, f"{source.address}: takes no C-FIND (Study Root)")

    def close(self) -> None:
        """Release the association, while there is time for that."""
        if not self._association.is_established:
            return
        left_s = min(self._order.left_s, self._source.timeout_s)
        if left_s < _LEAST_S:
            end(self._association)
            return
        with deadline(self._association, left_s):
            self._association.release()

    def find(self, keys: dict[int, str]) -> list[Any]:
        """All matches of a query."""
        found: list[Any] = []
        with closing(self._asked("send_c_find", FIND, Response.C_FIND, keys, self._silence_s)) as answers:
            for status, identifier in answers:
                if status not in (SUCCESS, *_PENDING):
                    raise NotFetchedError(Reason.CANNOT_QUERY, f"the source answers a query with 0x{status:04X}")
                if status in _PENDING and identifier is None:
                    raise self._ended(Reason.FAULT, "the source's answer to a query cannot be read")
                if len(found) == MAX_ANSWERS:
                    raise self._ended(Reason.FAULT, f"the source has more than {MAX_ANSWERS} answers to a query")
                if status in _PENDING:
                    found.append(identifier)
        return found

    def candidates(self, study: Study) -> list[Ref]:
        """Instances of a study that may be frontal radiographs, in the order in which they are tried."""
        series = query.radiographs(self.find(query.of_study(study)), study)
        images = [
            (answer, image)
            for uid, answer in list(series.items())[:MAX_SERIES]
            for image in self.find(query.of_series(study, uid))
        ]
        return query.candidates(images, study)[:MAX_TRIED]

    def require_get(self) -> None:
        """Look at what was negotiated."""
        address = self._source.address
        if not self._accepts(GET):
            raise NotFetchedError(Reason.CANNOT_RETRIEVE, f"{address}: takes no C-GET (Study Root)")
        if not any(context.as_scp for context in self._association.accepted_contexts):
            raise NotFetchedError(Reason.CANNOT_RETRIEVE, f"{address}: sends no CR or DX images in answer to a C-GET")

    def get_first(self, refs: Sequence[Ref], begin: Callable[[], Part]) -> Fetched | NotFetched:
        """Retrieve the first of these that can be."""
        self.require_get()
        words = ""
        for ref in refs:
            part = begin()
            try:
                status, taken = self._get(ref, part)
            except BaseException:
                part.discard()
                raise
            if taken is not None:
                return Fetched(ref=taken, part=part)
            part.discard()
            words = f"the source answers a C-GET with 0x{status:04X}, and without the object"
        return NotFetched(reason=Reason.CANNOT_RETRIEVE, sentence=words)

    def _get(self, ref: Ref, part: Part) -> tuple[int, Ref | None]:
        """Status, and the object as it came."""
        self._inbox.expect(ref, part)
        try:
            left_s = self._order.left_s  # an object may take all of it
            with closing(self._asked("send_c_get", GET, Response.C_GET, query.of_instance(ref), left_s)) as answers:
                *_, (status, _) = answers
        finally:
            taken = self._inbox.taken()
        return status, taken if status in (SUCCESS, _FAILED_IN_PART) else None

    def _asked(
        self, method: str, model: str, expected: Response, keys: dict[int, str], silence_s: float
    ) -> Generator[tuple[int, Any], None, None]:
        """Send a request; each of its answers with its status, up to the last one."""
        association = self._association
        self._message_id += 1
        identifier = dsutils.decode(BytesIO(query.encode(keys)), True, True)
        association.dimse_timeout = max(_LEAST_S, silence_s)
        with deadline(association, max(0.0, self._order.left_s)) as passed:
            send = getattr(association, method)
            try:
                replies = ask(association, lambda: send(identifier, model, msg_id=self._message_id))
            except RuntimeError:  # the source ended the association a moment ago
                replies = None
            for reply, answer in replies or ():
                status = reply.get("Status")
                if words := fault(association, expected, self._message_id):
                    raise self._ended(Reason.FAULT, self._inbox.fault or words)
                if status is None or passed.is_set():
                    break
                yield int(status), answer
                if status not in _PENDING:
                    return
            raise self._unanswered(passed.is_set(), _REFUSED[expected])

    def _unanswered(self, is_late: bool, otherwise: Reason) -> NotFetchedError:
        if self._inbox.fault:
            return self._ended(Reason.FAULT, self._inbox.fault)
        if is_late or not said(self._association):
            return self._ended(Reason.TIMEOUT, "the source did not answer in time", Cause.DESTINATION_MUTE)
        words = f"the source broke off: {said(self._association)}"  # so Orthanc refuses what it does not permit
        return self._ended(otherwise, words, Cause.DESTINATION_ABORTED)

    def _ended(self, reason: Reason, words: str, cause: Cause = Cause.DESTINATION_CONFUSED) -> NotFetchedError:
        """Abort; an answer that is not the one to the question is the last."""
        end(self._association)
        broken(self._entity, self._source.address, cause, words)
        return NotFetchedError(reason, words)

    def _accepts(self, sop_class_uid: str) -> bool:
        return any(context.abstract_syntax == sop_class_uid for context in self._association.accepted_contexts)
