"""Study: what became of an image or a study, found by what an operator has at hand, and what may be done about it.

The key that was typed is sent in the body of a POST, looked up as digests or as a UID, and repeated nowhere: neither in
an address nor in a title, a log line or the answer. From then on the images are named by their ledger numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from markupsafe import Markup
from pydantic import BaseModel, Field

from cxr_node import wiring
from cxr_node.assurance.report_rules import Said
from cxr_node.dicom.read import keys
from cxr_node.domain import Target
from cxr_node.node.ledger import listing, queries, status
from cxr_node.node.ledger.listing import Wanted
from cxr_node.node.ledger.queries import DeliveryRow, Story
from cxr_node.node.ledger.states import UNSENT, DeliveryState, InstanceState, SetAsideReason, StudyState
from cxr_node.node.ledger.study_stories import StudyRow
from cxr_node.result_kinds import ResultKind
from cxr_node.web import access, rendering
from cxr_node.web.identity import person
from cxr_node.web.pages import acts
from cxr_node.web.pages.acts import Act, Number, Operator
from cxr_node.web.pages.aside import Task, ask
from cxr_node.web.pages.opinions import Opinion, of_study, said_by
from cxr_node.web.problem import Problem
from cxr_node.web.services import Services, services

router = APIRouter(include_in_schema=False)
MOST = 50
"""Images of one key that are shown; the newest."""
_SHOWN = (ResultKind.REPORT, ResultKind.HEATMAP)
_ENDS = (DeliveryState.DEAD, DeliveryState.SET_ASIDE)
Viewer = Annotated[person.Person, Depends(access.viewer)]
Asker = Annotated[person.Person, Depends(access.form)]
Found = Annotated[Services, Depends(services)]
Numbers = Annotated[list[Number], Form(max_length=MOST)]


@dataclass(frozen=True, slots=True)
class Told:
    """One image's story, and what may be done about it."""

    story: Story
    target: Target | None
    study: StudyRow | None
    """None where no report of it was ever wanted."""
    is_first: bool
    """Of those of its study that are shown."""
    opinion: Opinion | None = None
    """What a reader may say, below the first of them; None: nobody is asked."""

    @property
    def deliveries(self) -> Sequence[DeliveryRow]:
        """Without those of the reports of its study."""
        of_study = frozenset[int]() if self.study is None else self.study.delivery_ids
        return [one for one in self.story.deliveries if one.id not in of_study]

    @property
    def acts(self) -> Sequence[Act]:
        """Those that can change something."""
        image, ways = self.story.instance, {each.state for each in self.story.deliveries}
        judged = image.state is not InstanceState.RECEIVED
        for_study = self.study is not None and self.study.state is StudyState.WAITING
        may = {
            Act.RETRY: image.state in (InstanceState.DEAD, InstanceState.SET_ASIDE) or not ways.isdisjoint(_ENDS),
            Act.SET_ASIDE: image.state in (InstanceState.RECEIVED, InstanceState.DEAD)
            or (for_study and image.state is InstanceState.REPORTED)
            or not ways.isdisjoint((*UNSENT, DeliveryState.DEAD)),
            Act.RESEND: judged and bool(ways - {DeliveryState.SHADOW}),
            Act.REJUDGE: judged and image.purged_at is None,
            Act.SHADOW_SEND: DeliveryState.SHADOW in ways,
            Act.SHADOW_EXPIRE: DeliveryState.SHADOW in ways,
        }
        return [act for act, possible in may.items() if possible]


class Wish(BaseModel):
    """What a button below an image sends: with the images that are shown, the one that is meant."""

    number: list[Number] = Field(max_length=MOST)
    of: Number
    what: Act
    reason: SetAsideReason | None = None


@router.get("/study")
def study(request: Request, person: Viewer) -> Response:
    """The box."""
    return _page(request, person)


@router.post("/study")
def find(request: Request, person: Asker, found: Found, key: Annotated[str, Form(max_length=256)]) -> Response:
    """Look a key up."""
    ledger, typed = found.ledger(), key.strip()
    wanted = Wanted(key=typed, accession_keys=keys.accession_keys(typed))
    numbers = [row.id for row in listing.find(ledger, wanted, MOST + 1)] if typed else []
    told = _told(found, numbers[:MOST], person)
    said = None if told else "The ledger knows no such UID, Accession Number, number or digest."
    return _page(request, person, told, said=said, are_more=len(numbers) > MOST)


@router.post("/study/act")
def act(
    request: Request, operator: Annotated[Operator, Depends(acts.operator)], wish: Annotated[Wish, Form()]
) -> Response:
    """Do something with one image, and show all that were shown."""
    match wish.what:
        case Act.RETRY:
            said = operator.retry([wish.of])
        case Act.RESEND:
            said = operator.resend([wish.of])
        case Act.REJUDGE:
            said = operator.rejudge([wish.of])
        case Act.SHADOW_SEND | Act.SHADOW_EXPIRE:
            said = operator.shadow([wish.of], send=wish.what is Act.SHADOW_SEND)
        case Act.SET_ASIDE if wish.reason is not None:
            said = operator.set_aside([wish.of], wish.reason)
        case _:
            raise Problem(422, "malformed", "say what is to be done, and why where it is set aside")
    told = _told(operator.found, wish.number, operator.person)
    return _page(request, operator.person, told, said=f"Image #{wish.of}: {said}")


class Word(BaseModel):
    """What a reader's button sends: with the images that are shown, the one whose study is meant."""

    number: list[Number] = Field(max_length=MOST)
    of: Number
    said: Said


@router.post("/study/say")
def say(
    request: Request, person: Annotated[person.Person, Depends(access.say)], found: Found, word: Annotated[Word, Form()]
) -> Response:
    """Keep a reader's word on a study."""
    said = said_by(found, person, access.client_of(request), word.of, word.said)
    return _page(request, person, _told(found, word.number, person), said=said)


@router.post("/study/results")
def results(request: Request, person: Asker, found: Found, number: Numbers, of: Annotated[Number, Form()]) -> Response:
    """Show heat map and report of one image, as they were sent."""
    if not found.web.show_images:
        raise Problem(403, "not-shown", "this node shows no images here (web.show_images)")
    found.people.changed(person.name, f"looks at the results of image #{of}", access.client_of(request))
    there = queries.present_results(found.ledger(), of, _SHOWN)
    shown = ask(Task.SHOW, found.config, results=[{"kind": kind, "sha256": sha256} for kind, sha256 in there])
    for each in shown:
        if "html" in each:
            each["html"] = Markup(each["html"])  # noqa: S704 - our own fragment, escaped where it is made
    return _page(request, person, _told(found, number, person), shown={of: shown})


def _told(of: Services, numbers: Sequence[int], person: person.Person) -> list[Told]:
    titles = {to.name: to.ae_title for to in of.config.destinations}
    ledger, targets = of.ledger(), wiring.targets(of.config)
    shown = []
    with ledger.database.one_view():
        found = [story for each in sorted(set(numbers)) for story in queries.trace(ledger, f"instance={each}", titles)]
        for study, stories in status.told(ledger, found, of.config.spool.path, titles):
            for place, story in enumerate(stories):
                target = targets.get((story.instance.profile or "").rpartition(" ")[0])
                opinion = of_study(ledger, stories, person, target) if place == 0 and person.may_say else None
                shown.append(Told(story, target, study, is_first=place == 0, opinion=opinion))
    return shown


def _page(request: Request, person: person.Person, told: Sequence[Told] = (), **more: Any) -> Response:
    values: dict[str, Any] = {"said": None, "are_more": False, "shown": {}, "reasons": tuple(SetAsideReason)} | more
    shows_images = request.app.state.services.web.show_images
    return rendering.page(request, "study.html", person=person, told=told, shows_images=shows_images, **values)
