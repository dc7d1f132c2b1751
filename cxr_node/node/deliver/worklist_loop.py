"""Works off one worklist in a thread of its own: looks into it, claims items, and brings each to an end.

Knows no protocol: a `Manager` does. The ledger is written before the manager is asked, and whatever is asked may be
asked again under the same Transaction UID: a process that is killed leaves no item in progress that nobody knows. Where
an answer was lost, or does not decide, the item itself is read, and an update under our Transaction UID shows whose
it is. Of several machines the one that has the duty looks into the worklist; items are leased one by one.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from cxr_node.config.destinations import ArchiveDestination, DicomDestination
from cxr_node.config.worklists import AnyWorklist, Code, UpsRsWorklist, UpsWorklist
from cxr_node.errors import DeliveryError, LedgerLostError, ResourceError
from cxr_node.node.deliver.input_images import InputImages
from cxr_node.node.deliver.loop import DeliveryContext, ServiceLoop
from cxr_node.node.deliver.outage import Outage
from cxr_node.node.ledger import destination_health, duties, work_items
from cxr_node.node.ledger.duties import Held
from cxr_node.node.ledger.work_items import CancelReason, Stored, WorkItem, WorkState
from cxr_node.node.ledger.work_standing import WORDS, Stage, Standing, standing
from cxr_node.node.network.rejections import Refusals
from cxr_node.node.process.logs import describe
from cxr_node.node.retry import LOOK_AFTER_S, NO_PAUSE, Breaker, Pause, backoff_s
from cxr_node.node.worklists import workitem
from cxr_node.node.worklists.attributes import DataSet
from cxr_node.node.worklists.ups_scu import UpsScu
from cxr_node.node.worklists.workitem import OWN_SCHEME, Manager, Performed, Place, Reply, Said, StepState, Workitem

log = logging.getLogger(__name__)

LEASE_S = 240.0
"""Longer than one step takes, whatever the manager and the archive do."""
LOOK_S = 3.0
"""Between two looks for what others do with the images of an item: a few rows of the ledger."""
LEFT_ALONE_S = 600.0
"""An item that is not for this node, or not yet, is read again after this."""
FETCH_AGAIN_S = 30.0
"""Longest pause between two tries to fetch images: they may come by themselves meanwhile."""
MAX_REFUSALS = 5
"""After as many an item that is not ours is passed over, and one that is not let complete is canceled."""
_MOST_LEFT_ALONE = 1000
_DESCRIPTION = "Chest radiograph AI (research)"


def manager_of(worklist: AnyWorklist, node_ae_title: str, refusals: Refusals | None = None) -> Manager:
    """Whoever has the items of a worklist, by the protocol that it speaks.

    Raises
    ------
    ConfigError : a certificate, key or secret cannot be used.
    """
    match worklist:
        case UpsWorklist():
            return UpsScu(worklist, node_ae_title, refusals)
        case UpsRsWorklist():
            from cxr_node.node.deliver.ups_rs import UpsRs  # httpx is for those who need it

            return UpsRs(worklist, refusals)


class WorklistLoop(ServiceLoop):
    """Works off one worklist."""

    def __init__(
        self, context: DeliveryContext, worklist: AnyWorklist, manager: Manager, inputs: InputImages | None
    ) -> None:
        super().__init__(context, worklist.name, worklist.idle_close_s)
        self._worklist, self._manager, self._inputs = worklist, manager, inputs
        self._breaker = Breaker(context.config.delivery)
        self._outage = Outage(worklist.name)
        self._left_alone: dict[str, float] = {}
        self._never_asked: set[str] = set()
        """Items that this process found; with their first lease nobody else can have asked for them either."""
        self._due_at = time.monotonic()
        self._again_s = 0.0  # a process that has just begun does not ask when another one looked
        destinations = context.config.destinations
        self._archives = {each.name: each for each in destinations if isinstance(each, ArchiveDestination)}
        work_items.free(context.ledger, self.name, context.owner)  # no other thread leases items by that name

    def forget_failures(self) -> None:
        """Ask at once."""
        self._breaker.answered()
        self._due_at, self._again_s = time.monotonic(), 0.0

    def close(self) -> None:
        """Disconnect."""
        self._manager.close()

    def do_one(self) -> Pause:
        """Bring one item a step further, or look into the worklist.

        Raises
        ------
        ResourceError : the ledger or the spool cannot be used now.
        """
        ledger = self._context.ledger
        item = work_items.claim_item(ledger, self.name, self._context.owner, LEASE_S)
        if item is not None:
            return self._step(item)
        if self._due_at <= time.monotonic():
            return self._look()
        due_s = work_items.next_item_s(ledger, self.name)
        left_s = max(0.0, self._due_at - time.monotonic())
        return Pause(min(LOOK_AFTER_S, left_s, LOOK_AFTER_S if due_s is None else due_s))

    def _look(self) -> Pause:
        """Search for items and remember those that are to be claimed, as the one process that does that now."""
        ledger, worklist = self._context.ledger, self._worklist
        self._due_at = time.monotonic() + worklist.every_s
        free = worklist.claim_max - work_items.number_open(ledger, self.name)
        if free <= 0:
            return NO_PAUSE
        duty = duties.take(ledger, duties.of_worklist(self.name), self._context.owner, self._again_s)
        self._again_s = worklist.every_s
        if isinstance(duty, float):
            self._due_at = time.monotonic() + min(duty, worklist.every_s)
            return NO_PAUSE
        try:
            found = [each for each in self._manager.search(worklist) if each.is_worth_reading(worklist)]
            known = work_items.known(ledger, self.name, [each.uid for each in found])
            wanted = sorted((each for each in found if each.uid not in known), key=lambda each: each.priority)
            for each in wanted:
                free -= int(free > 0 and self._is_taken(each, duty))
                self.moved_at = time.monotonic()
        except DeliveryError as error:
            return self._unanswered(error)
        except (ResourceError, LedgerLostError):
            raise
        except Exception as error:
            log.error("failed worklist=%s %s", self.name, describe(error))
            return NO_PAUSE
        finally:
            duties.done(ledger, duty)
        self._answered()
        return NO_PAUSE

    def _is_taken(self, found: Workitem, duty: Held) -> bool:
        """Remember an item that is for this node: it is claimed next."""
        item = self._suitable(found)
        if item is None:
            return False
        is_new = work_items.remember(self._context.ledger, duty, self.name, item.uid, item.priority, item.images)
        if is_new:
            self._never_asked.add(item.uid)
        return is_new

    def _suitable(self, found: Workitem) -> Workitem | None:
        """The item itself, which says what images it is about; None where it is left to others."""
        now = time.monotonic()
        if self._left_alone.get(found.uid, 0.0) > now:
            return None
        read = self._manager.read(found.uid)
        words = "it is gone" if read is None else read.why_not(self._worklist)
        if not words:
            return read
        if len(self._left_alone) >= _MOST_LEFT_ALONE:
            self._left_alone.clear()
        self._left_alone[found.uid] = now + LEFT_ALONE_S
        log.info("left alone worklist=%s item=%s %s", self.name, found.uid, words)
        return None

    def _step(self, item: WorkItem) -> Pause:
        try:
            match item.state:
                case WorkState.CLAIMING:
                    self._claim(item)
                case WorkState.COMPLETING:
                    self._complete(item)
                case WorkState.CANCELING:
                    self._cancel(item)
                case _:
                    self._watch(item)
        except DeliveryError as error:
            pause = self._unanswered(error)
            again_s = max(pause.seconds, backoff_s(self._context.config.delivery, item.attempts))
            work_items.postpone(self._context.ledger, item, again_s, failed=str(error))
            return pause
        except (ResourceError, LedgerLostError):
            raise
        except Exception as error:
            again_s = backoff_s(self._context.config.delivery, item.attempts)
            work_items.postpone(self._context.ledger, item, again_s, failed=describe(error))
            log.error("failed worklist=%s item=%s %s", self.name, item.workitem_uid, describe(error))
        return NO_PAUSE

    def _claim(self, item: WorkItem) -> None:
        """Ask for it; of one that is IN PROGRESS already, an update under our Transaction UID shows whose it is."""
        is_first = item.workitem_uid in self._never_asked and item.claim.fence == 1
        self._never_asked.discard(item.workitem_uid)
        reply = self._changed(item, StepState.IN_PROGRESS)
        if reply.said is Said.DONE:
            self._settle(item, WorkState.CLAIMED)
            return
        state = self._state(item, reply)
        if state == StepState.IN_PROGRESS and is_first:  # by a request that is not ours
            state = None
        if state == StepState.IN_PROGRESS:
            reply = self._manager.update(item.workitem_uid, item.transaction_uid, workitem.progress(0, "claimed"))
            if reply.said is Said.DONE:
                self._settle(item, WorkState.CLAIMED, "claimed by a request whose answer was lost")
                return
            state = StepState.IN_PROGRESS if reply.said is Said.REFUSED else None
        if state not in (StepState.SCHEDULED, StepState.IN_PROGRESS):
            self._settle(item, WorkState.PASSED_OVER, f"it is another's, or has ended ({reply.words})")
        elif state == StepState.SCHEDULED and item.attempts >= MAX_REFUSALS:
            self._settle(item, WorkState.PASSED_OVER, f"the manager refuses it ({reply.words})")
        else:
            self._refused(item, reply)

    def _watch(self, item: WorkItem) -> None:
        """See how far its images are, fetch those that are missing, and tell the manager."""
        where = standing(self._context.ledger, item.images, tuple(self._archives))
        if where.stored is not None:
            self._settle(item, WorkState.COMPLETING, stored=where.stored)
        elif (reason := where.hopeless or self._too_late(item, where)) is not None:
            self._settle(item, WorkState.CANCELING, reason=reason)
        elif item.progress < where.stage:
            self._tell(item, where.stage)
        elif where.missing and self._inputs is not None and self._inputs.are_sought(item, self._worklist):
            self._fetch(self._inputs, item, where)
        else:
            work_items.postpone(self._context.ledger, item, LOOK_S)

    def _too_late(self, item: WorkItem, where: Standing) -> CancelReason | None:
        passed = self._context.ledger.now() - _begun(item)
        if where.missing and passed >= timedelta(minutes=self._worklist.images_within_min):
            return CancelReason.IMAGES_MISSING
        return CancelReason.TIME_IS_UP if passed >= timedelta(minutes=self._worklist.done_within_min) else None

    def _tell(self, item: WorkItem, stage: Stage) -> None:
        told = workitem.progress(int(stage), WORDS[stage])
        reply = self._updated(item, told)
        if reply.said is Said.DONE:
            work_items.progressed(self._context.ledger, item, int(stage), 0.0)
            return
        state = self._state(item, reply)
        if state == StepState.IN_PROGRESS:  # what people are told is not worth more than the work
            log.warning("progress refused worklist=%s item=%s %s", self.name, item.workitem_uid, reply.words)
            work_items.progressed(self._context.ledger, item, int(stage), 0.0)
        else:
            self._withdrawn(item, reply)

    def _fetch(self, inputs: InputImages, item: WorkItem, where: Standing) -> None:
        """Fetch what is missing; what comes goes through the same door as what is sent."""
        words = inputs.fetch(item, self._worklist, where.missing)
        if words:
            again_s = min(FETCH_AGAIN_S, backoff_s(self._context.config.delivery, item.attempts))
            work_items.postpone(self._context.ledger, item, again_s, failed=words)
        else:
            work_items.postpone(self._context.ledger, item, 0.0)

    def _complete(self, item: WorkItem) -> None:
        """Tell what was done, then complete it. A repeat tells the same."""
        stored = item.stored or Stored(destination="", outputs=())
        archive = self._archives.get(stored.destination)
        if isinstance(archive, DicomDestination):
            place = Place(ae_title=archive.ae_title)
        else:
            place = Place(url="" if archive is None else archive.where)
        node = self._context.config.listen.ae_title
        performed = Performed(
            station=self._worklist.station_name or Code(value=node, scheme=OWN_SCHEME, meaning="cxr_node"),
            workitem=self._worklist.workitem_code,
            description=_DESCRIPTION,
            begun_at=_begun(item),
            ended_at=item.updated_at,
            place=place,
            outputs=stored.outputs,
        )
        reply = self._updated(item, performed.told())
        if reply.said is Said.DONE:
            reply = self._changed(item, StepState.COMPLETED)
        if reply.said is Said.DONE:
            self._settle(item, WorkState.COMPLETED)
        else:
            self._resolve(item, reply)

    def _cancel(self, item: WorkItem) -> None:
        """Say why, then cancel it; a manager that does not take the reason is asked all the same."""
        reply = self._updated(item, workitem.canceled(item.reason or CancelReason.FAULT, item.updated_at))
        if reply.said in (Said.DONE, Said.REFUSED):
            reply = self._changed(item, StepState.CANCELED)
        if reply.said is Said.DONE:
            self._settle(item, WorkState.CANCELED)
        else:
            self._resolve(item, reply)

    def _resolve(self, item: WorkItem, reply: Reply) -> None:
        """An item that could not be ended: it has ended already, or is not ours any more, or is refused."""
        state = self._state(item, reply)
        if state == StepState.COMPLETED and item.stored is not None:
            self._settle(item, WorkState.COMPLETED, "completed by a request whose answer was lost")
        elif state == StepState.CANCELED and item.state is WorkState.CANCELING:
            self._settle(item, WorkState.CANCELED, "canceled by a request whose answer was lost")
        elif state != StepState.IN_PROGRESS:
            self._withdrawn(item, reply)
        elif item.state is WorkState.COMPLETING and item.attempts >= MAX_REFUSALS:
            self._settle(item, WorkState.CANCELING, reply.words, reason=CancelReason.REFUSED)
        else:
            self._refused(item, reply)

    def _state(self, item: WorkItem, reply: Reply) -> str | None:
        """What an item is by what its manager says now; None where it is not ours, or not there."""
        found = None if reply.said in (Said.GONE, Said.NOT_OURS) else self._manager.read(item.workitem_uid)
        if found is not None and found.state not in set(StepState):
            raise DeliveryError("the manager does not say in which state the item is", permanent=False)
        return None if found is None else found.state

    def _updated(self, item: WorkItem, told: DataSet) -> Reply:
        reply = self._manager.update(item.workitem_uid, item.transaction_uid, told)
        self._answered()
        return reply

    def _changed(self, item: WorkItem, state: StepState) -> Reply:
        reply = self._manager.change(item.workitem_uid, state, item.transaction_uid)
        self._answered()
        return reply

    def _withdrawn(self, item: WorkItem, reply: Reply) -> None:
        self._settle(item, WorkState.WITHDRAWN, f"the manager ended it or took it back ({reply.words})")

    def _refused(self, item: WorkItem, reply: Reply) -> None:
        again_s = backoff_s(self._context.config.delivery, item.attempts)
        work_items.postpone(self._context.ledger, item, again_s, failed=reply.words)
        log.warning("refused worklist=%s item=%s %s", self.name, item.workitem_uid, reply.words)

    def _settle(self, item: WorkItem, to: WorkState, detail: str = "", **more: object) -> None:
        is_held = work_items.settle(self._context.ledger, item, to, detail, **more)  # type: ignore[arg-type]  # as there
        log.log(
            logging.WARNING if to in (WorkState.CANCELING, WorkState.WITHDRAWN) else logging.INFO,
            "%s worklist=%s item=%s transaction=%s %s",
            *(to.lower().replace("_", " "), self.name, item.workitem_uid, item.transaction_uid),
            " ".join(str(word) for word in (more.get("reason"), detail, not is_held and "lost-lease") if word) or "-",
        )

    def _answered(self) -> None:
        if self._breaker.failures:
            self._breaker.answered()
            self._outage.end()
            destination_health.answered(self._context.ledger, self.name)

    def _unanswered(self, error: DeliveryError) -> Pause:
        pause = self._breaker.failed(error.after_s)
        self._outage.count()
        destination_health.down(self._context.ledger, self.name, pause.seconds, str(error))
        log.warning("no answer worklist=%s again_in_s=%.1f %s", self.name, pause.seconds, error)
        return pause


def _begun(item: WorkItem) -> datetime:
    return item.claimed_at or item.updated_at
