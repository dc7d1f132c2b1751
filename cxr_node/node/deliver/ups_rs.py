"""UPS-RS user agent: searches, reads and changes work items of one manager over HTTP (PS3.18 11).

A status alone proves nothing: a login page answers 200, a proxy 404. A state was changed when the item says so, and an
item is gone when a search for it is answered and does not find it. A request URL holds UIDs and codes, nothing of a
patient. How an update names its transaction has changed four times since 2014; each way is tried, and what works is
kept.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from cxr_node.config.worklists import UpsRsWorklist, Worklist
from cxr_node.errors import DeliveryError
from cxr_node.node.deliver.http_client import HttpClient
from cxr_node.node.deliver.http_exchange import Answer, Request, in_pieces
from cxr_node.node.deliver.link import StaleConnectionError
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.worklists import workitem
from cxr_node.node.worklists.attributes import TAGS, DataSet, of_json, to_json
from cxr_node.node.worklists.workitem import Reply, Said, StepState, Workitem

JSON = "application/dicom+json"
MAX_ANSWERS = 100
"""To one search: an answer is no longer than one MiB."""
PROBED = "2.25.0"
"""No item has it: asked for by `check`, so that no answer is about a patient."""
IN_BODY = ""
TRANSACTION = ("transaction-uid", "Transaction-uid", "transaction", IN_BODY)
"""Query parameter of an update that has the Transaction UID: of 2019b, 2025e and 2014c; dcm4chee 5.35 has none."""
REFUSED = (400, 409, 422)
GONE = (404, 410)
_MEDIA_TYPES = (JSON, "application/json")
_NO_CONTENT = 204


class UpsRs:
    """Asks one manager. For one thread.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """

    def __init__(self, worklist: UpsRsWorklist, refusals: Refusals | None = None) -> None:
        self._url = worklist.url
        self._http = HttpClient(worklist.server, refusals)
        self._ways = list(TRANSACTION)

    def search(self, worklist: Worklist) -> list[Workitem]:
        """Search Transaction; a manager that cannot match the codes is asked for all that are SCHEDULED."""
        code, station = worklist.workitem_code, worklist.station_name
        state = [("00741000", StepState.SCHEDULED.value)]
        wanted = [("00404018.00080100", code.value), ("00404018.00080102", code.scheme)]
        if station is not None:
            wanted += [("00404025.00080100", station.value), ("00404025.00080102", station.scheme)]
        asked = ("ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence", "InputReadinessState")
        more = [("includefield", f"{TAGS[keyword][0]:08X}") for keyword in asked] + [("limit", str(MAX_ANSWERS))]
        answer = self._search([*state, *wanted, *more])
        if answer.status == 400:
            answer = self._search([*state, *more])
        return [one for each in _items(answer, "search") if (one := workitem.read(of_json(each))) is not None]

    def read(self, uid: str) -> Workitem | None:
        """Retrieve Transaction."""
        answer = self._ask(Request(method="GET", url=self._where(uid), headers={"accept": JSON}))
        if answer.status in GONE:
            self._require_gone(uid)
            return None
        found = [of_json(each) for each in _items(answer, "retrieval of an item")]
        if len(found) != 1 or found[0].get("SOPInstanceUID", [uid]) != [uid]:
            raise self._confused("the answer to the retrieval of an item is about others")
        return workitem.read(found[0], uid)

    def change(self, uid: str, state: StepState, transaction_uid: str) -> Reply:
        """Change State Transaction; done when the item says so."""
        told = workitem.claimed(transaction_uid, state)
        answer = self._http.ask(_with_body("PUT", f"{self._where(uid)}/state", told))  # not repeated here: see `_claim`
        reply = self._told(uid, answer, "change of state")
        if reply.said is not Said.DONE:
            return reply
        found = self.read(uid)
        if found is None:
            return Reply(said=Said.GONE, words=reply.words)
        if found.state != state:
            return Reply(said=Said.REFUSED, words=f"{reply.words}, and the item is in another state")
        return reply

    def update(self, uid: str, transaction_uid: str, told: DataSet) -> Reply:
        """Update Transaction, in the way that worked last, then in the others.

        One that is refused may be about the item's state, what is told, or whose it is: no status says which.
        """
        reply = Reply(said=Said.REFUSED, words="")
        for way in list(self._ways):
            query = f"?{urlencode({way: transaction_uid})}" if way else ""
            content = told if way else {**told, "TransactionUID": transaction_uid}
            answer = self._ask(_with_body("POST", f"{self._where(uid)}{query}", content))
            reply = self._told(uid, answer, "update")
            if reply.said is not Said.REFUSED:
                if reply.said is Said.DONE and way != self._ways[0]:
                    self._ways.remove(way)
                    self._ways.insert(0, way)
                return reply
        return reply

    def probe(self) -> str:
        """Retrieve an item that nobody has."""
        try:
            if self.read(PROBED) is not None:
                raise self._confused("it has an item of a UID that nobody gives")
            return f"{self._url} answers UPS-RS"
        except DeliveryError as error:
            raise DeliveryError(f"{self._url}: {error}", permanent=False, answered=error.answered) from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _told(self, uid: str, answer: Answer, what: str) -> Reply:
        if answer.status // 100 == 2 and answer.media_type in ("", *_MEDIA_TYPES):
            return Reply(said=Said.DONE, words=answer.words)
        if answer.status in REFUSED:
            return Reply(said=Said.REFUSED, words=answer.words)
        if answer.status in GONE:
            self._require_gone(uid)
            return Reply(said=Said.GONE, words=answer.words)
        raise _undecided(answer, what)

    def _require_gone(self, uid: str) -> None:
        """Whoever answers 404 may be a proxy, or have no such service."""
        answer = self._search([("00080018", uid)])
        if any(of_json(each).get("SOPInstanceUID") == [uid] for each in _items(answer, "search for an item")):
            raise self._confused("it finds an item, and does not show it")

    def _search(self, query: list[tuple[str, str]]) -> Answer:
        url = f"{self._url}/workitems?{urlencode(query)}"
        return self._ask(Request(method="GET", url=url, headers={"accept": JSON}))

    def _ask(self, request: Request) -> Answer:
        try:
            return self._http.ask(request)
        except StaleConnectionError:  # a repeat under the same UIDs changes nothing
            return self._http.ask(request)

    def _where(self, uid: str) -> str:
        return f"{self._url}/workitems/{uid}"

    def _confused(self, words: str) -> DeliveryError:
        self._http.confused(words)
        return DeliveryError(words, permanent=False, answered=True)


def _with_body(method: str, url: str, content: DataSet) -> Request:
    body = json.dumps([to_json(content)]).encode()
    headers = {"accept": JSON, "content-type": JSON, "content-length": str(len(body))}
    return Request(method=method, url=url, headers=headers, body=lambda: in_pieces(body))


def _items(answer: Answer, what: str) -> list[Any]:
    """The data sets of an answer.

    Raises
    ------
    DeliveryError : it is none.
    """
    if answer.status == _NO_CONTENT:
        return []
    if answer.status // 100 != 2 or answer.media_type not in _MEDIA_TYPES:
        raise _undecided(answer, what)
    try:
        found = json.loads(answer.content or b"[]")
    except (ValueError, RecursionError) as error:
        raise DeliveryError(f"an answer to the {what} that cannot be read", permanent=False, answered=True) from error
    return found if isinstance(found, list) else [found]


def _undecided(answer: Answer, what: str) -> DeliveryError:
    words = f"{answer.words} to the {what}"
    if answer.status // 100 == 2:
        words += ", and no DICOM JSON: it may be a login page"
    return DeliveryError(words, permanent=False, answered=True, after_s=answer.after_s)
