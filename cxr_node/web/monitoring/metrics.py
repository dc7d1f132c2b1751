"""The node's metrics in Prometheus' text format: what the ledger knows, read at the scrape, and what processes counted.

A part that cannot be read takes no other with it: `cxr_node_scrape_errors` says how many there were. What retention
makes smaller is a gauge here; what only grows is counted by the processes (`node.process.metrics`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from cxr_node.assurance import phantom_record
from cxr_node.config.schema import Config
from cxr_node.node.ledger import destination_health, holds, listing, machines, queries, study_stories
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.listing import By
from cxr_node.node.ledger.machines import MachineState
from cxr_node.node.ledger.states import DeadReason, PromiseState, StudyState
from cxr_node.node.process import supervisor
from cxr_node.node.process.logs import describe
from cxr_node.node.process.metrics import FOLDER, MAX_SENDERS
from cxr_node.web.monitoring import drifts, facts
from cxr_node.web.monitoring.facts import Paced

log = logging.getLogger(__name__)

Labels = TypeVar("Labels", bound=tuple[str, ...])

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DUE = (PromiseState.DUE, PromiseState.ASKED, PromiseState.UNCOMMITTED)
"""Without COMMITTED, which may be a million rows."""


class Exposition:
    """One node's metrics. Threads share it: one reads at a time."""

    def __init__(self, config: Config, ledger: Callable[[], Ledger]) -> None:
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(config, ledger))

    def read(self) -> bytes:
        """All metrics as they are now, in the format of CONTENT_TYPE."""
        with self._lock:
            return generate_latest(self._registry)


class _Collector:
    def __init__(self, config: Config, ledger: Callable[[], Ledger]) -> None:
        self._config = config
        self._ledger = ledger
        self._counts = Paced(lambda: queries.counts(ledger()))
        self._queues = Paced(lambda: queries.queues(ledger()))
        self._uncommitted = Paced(lambda: queries.uncommitted(ledger()))
        self._profiles = Paced(lambda: facts.profiles(config), least_s=60.0)
        self._failing: set[str] = set()

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the ledger."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read every part; count those that cannot be read."""
        parts = [
            *(self._received, self._instances, self._studies, self._waiting, self._dead, self._deliveries),
            *(
                self._destinations,
                self._commitments,
                self._disk,
                self._store,
                self._certificates,
                self._audit,
                self._info,
                self._drift,
                self._constancy,
                self._roles,
                self._counted,
            ),
        ]
        errors = 0
        for part in parts:
            try:
                yield from list(part())
                self._failing.discard(part.__name__)
            except Exception as error:  # one part's fault, whatever it is, must not hide the others
                errors += 1
                if part.__name__ not in self._failing:
                    self._failing.add(part.__name__)
                    log.error("metrics not read part=%s %s", part.__name__.lstrip("_"), describe(error))
        yield _gauge("scrape_errors", "Parts of this scrape that could not be read.", {(): errors})

    def _received(self) -> Iterator[Metric]:
        last = islice(listing.last_received(self._ledger(), By.SENDER).items(), MAX_SENDERS)
        words = "When each sender sent its last image; the latest hundred senders."
        yield _gauge("last_received_timestamp_seconds", words, {(name,): at.timestamp() for name, at in last}, "sender")

    def _instances(self) -> Iterator[Metric]:
        samples = {(state,): number for state, number in self._counts().items()}
        yield _gauge("instances", "Images in the ledger, by state.", samples, "state")

    def _waiting(self) -> Iterator[Metric]:
        ledger = self._ledger()
        now, first = ledger.now(), listing.oldest_instance(ledger)
        held = holds.look(ledger)
        since = [oldest.since for name, oldest in listing.oldest_deliveries(ledger).items() if name not in held]
        samples = {
            ("work",): (now - first.since).total_seconds() if first else 0.0,
            ("deliver",): (now - min(since)).total_seconds() if since else 0.0,
        }
        backlog = facts.backlog(self._config)
        if backlog is not None:
            samples[("audit",)] = (now - backlog.since).total_seconds() if backlog.since else 0.0
        study = study_stories.counts(ledger, self._config.study.max_wait_s).oldest
        samples[("study",)] = max(0.0, (now - study.due_at).total_seconds()) if study else 0.0
        words = (
            "Age of what has waited longest: an image, a result that is not held, an audit message; of a study so "
            "long as it waits beyond its longest time; 0: nothing does."
        )
        yield _gauge("oldest_waiting_seconds", words, samples, "stage")

    def _studies(self) -> Iterator[Metric]:
        found = study_stories.counts(self._ledger(), self._config.study.max_wait_s)
        samples = {(StudyState.WAITING,): found.waiting, (StudyState.FAILED,): found.failed}
        words = "Studies that wait for their report, and those of which none could be made, until a person decides."
        yield _gauge("studies", words, samples, "state")

    def _dead(self) -> Iterator[Metric]:
        found = queries.dead(self._ledger())
        samples = {(reason,): found.get(reason, 0) for reason in {*DeadReason, *found}}
        yield _gauge("dead", "Images that are DEAD and wait for a person, by reason.", samples, "reason")

    def _deliveries(self) -> Iterator[Metric]:
        samples = {(name, state): number for name, states in self._queues().items() for state, number in states.items()}
        words = "Results and destinations in the ledger, by state of the delivery."
        yield _gauge("deliveries", words, samples, "destination", "state")

    def _destinations(self) -> Iterator[Metric]:
        health = destination_health.look(self._ledger())
        names = [destination.name for destination in self._config.destinations]
        down = {name for name in names if name in health and health[name].down_since is not None}
        samples = {(name,): int(name not in down) for name in names}
        yield _gauge("destination_up", "0 where a destination did not answer the last try.", samples, "destination")
        held = holds.look(self._ledger())
        samples = {(name,): int(name in held) for name in names}
        yield _gauge("destination_held", "1 while an operator holds a destination.", samples, "destination")
        shares = {(to.name,): self._config.live_share(to) for to in self._config.destinations}
        words = "Share of studies whose results a destination is sent; 0: all are kept in shadow."
        yield _gauge("destination_live_ratio", words, shares, "destination")

    def _commitments(self) -> Iterator[Metric]:
        asked = [destination.name for destination in self._config.destinations if destination.is_asked_to_commit]
        found = self._uncommitted() if asked else {}
        samples = {(name, state): found.get(name, {}).get(state, 0) for name in asked for state in _DUE}
        words = "Accepted results that their destination has not committed itself to, by state."
        yield _gauge("commitments", words, samples, "destination", "state")

    def _disk(self) -> Iterator[Metric]:
        words = "Free on the file system of this machine's spool."
        yield _gauge("spool_free_bytes", words, {(): facts.free_bytes(self._config)})
        words = "Below this every C-STORE is refused (spool.min_free_mib)."
        yield _gauge("spool_watermark_bytes", words, {(): facts.watermark_bytes(self._config)})

    def _store(self) -> Iterator[Metric]:
        free = facts.store_free_bytes(self._config)
        if free is not None:
            yield _gauge("store_free_bytes", "Free on the share that holds what is stored.", {(): free})

    def _certificates(self) -> Iterator[Metric]:
        samples = {(role,): at.timestamp() for role, at in facts.certificate_ends(self._config).items()}
        words = "When the first certificate of a role ends, its chain and its CA included."
        yield _gauge("certificate_expiry_timestamp_seconds", words, samples, "role")

    def _audit(self) -> Iterator[Metric]:
        backlog = facts.backlog(self._config)
        if backlog is not None:
            yield _gauge("audit_backlog_bytes", "Audit messages the collector does not have.", {(): backlog.nr_bytes})

    def _info(self) -> Iterator[Metric]:
        family = InfoMetricFamily("cxr_node_profile", "Configured profiles.", labels=("profile",))
        for each in self._profiles():
            family.add_metric((each.name,), {"version": each.version, "weights": each.weights_sha256[:12]})
        yield family
        bands = {each.name: self._config.alerts.abstention_band or each.abstention for each in self._profiles()}
        samples = {
            (name, bound): share
            for name, band in bands.items()
            if band is not None
            for bound, share in zip(("low", "high"), band, strict=True)
        }
        words = "Share of UNCERTAIN that is expected, least and greatest: as configured, or as the profile predicts."
        yield _gauge("abstention_band_ratio", words, samples, "profile", "bound")

    def _drift(self) -> Iterator[Metric]:
        found = drifts.look(self._config, self._ledger())
        seen = {name: each for name, each in found.items() if not isinstance(each, int)}
        least: dict[tuple[str, str, str], float] = {}
        for name, drift in seen.items():
            for figure in drift.figures:
                labels = name, figure.name, figure.sender or "all"
                least[labels] = min(figure.adjusted, least.get(labels, 1.0))
        words = "Probability of what a figure shows, or more, without any change of the films; Holm over all figures."
        yield _gauge("drift_pvalue", words, least, "profile", "figure", "sender")
        words = "1 where the films are no longer as the site's own first ones were; 0 also while those are too few."
        yield _gauge("drift", words, {(name,): int(name in seen and seen[name].is_begun) for name in found}, "profile")

    def _constancy(self) -> Iterator[Metric]:
        last = phantom_record.last(self._config.spool.path)
        words = "1 where the last phantom of `cxr-node constancy` got its expected answer in time."
        yield _gauge("constancy", words, {(each.profile,): int(not each.fault) for each in last}, "profile")
        at = {(each.profile,): datetime.fromisoformat(each.at).timestamp() for each in last}
        yield _gauge("constancy_timestamp_seconds", "When that phantom was sent.", at, "profile")

    def _roles(self) -> Iterator[Metric]:
        roles, path = supervisor.ROLES, self._config.spool.path
        if self._config.ledger.url is None:
            states = supervisor.look(path, roles)
        else:
            found = machines.look(self._ledger(), path, (*roles, "web"))
            states = machines.together(found, roles)
            yield from self._machines(found)
        samples = {(role,): int(state.running) for role, state in states.items()}
        yield _gauge("role_up", "1 while a process of that role runs, on whichever machine.", samples, "role")

    def _machines(self, found: Sequence[MachineState]) -> Iterator[Metric]:
        """A machine that is gone for good is forgotten after a week, and its series with it."""
        up = {(each.name,): int(not each.is_silent) for each in found}
        yield _gauge("machine_up", "0 where a machine has not been heard of for a minute.", up, "machine")
        running = {
            (role, each.name): int(state.running and not each.is_silent)
            for each in found
            for role, state in each.roles.items()
            if state.since is not None
        }
        words = "1 while a process of that role runs on that machine; of roles that ran there once."
        yield _gauge("process_up", words, running, "role", "machine")

    def _counted(self) -> Iterator[Metric]:
        folder = self._config.spool.path / FOLDER
        if folder.is_dir():
            yield from MultiProcessCollector(None, str(folder)).collect()  # type: ignore[no-untyped-call]  # theirs


def _gauge(name: str, words: str, samples: Mapping[Labels, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"cxr_node_{name}", words, labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family
