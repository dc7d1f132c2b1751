"""One node on several machines: receivers behind HAProxy, workers, deliverers, one ledger and one store for all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cxr_node.config.network import Address
from cxr_node.node.ledger import queries
from cxr_node.node.ledger.ledger import Ledger
from cxr_node.node.ledger.states import InstanceState
from cxr_node.web.identity.users import Role as UserRole
from cxr_node.web.identity.users import UserFile
from tests.chaos.accounting import Held
from tests.chaos.archive import Archive
from tests.chaos.network import Host, Network
from tests.chaos.node import AE_TITLE, PAGE_PORT, Services, settings
from tests.chaos.servers import DATABASE, DICOM_PORT, Balancer, Databases, databases
from tests.node import buckets
from tests.postgres import PASSWORD
from tests.processes import configured

ROLES = ("receive", "work", "deliver", "web")
ASSOCIATIONS = 16


class Machine(Services):
    """The roles of one machine; it may be lost for good."""

    def __init__(self, folder: Path, host: Host, roles: Sequence[str], network: Network, **sections: Any) -> None:
        self.host, self._network = host, network
        address = Address(ae_title=AE_TITLE, host=host.address, port=DICOM_PORT)
        config = configured(folder, "node", DICOM_PORT, **sections)
        super().__init__(folder, config, address, roles, host.within)

    def lose(self) -> None:
        """Power off: nothing says goodbye."""
        self._network.unplug(self.host)
        self.die()


class Cluster:
    """All of it; the test stands outside, and may look into ledger and store past the node."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        databases: Databases,
        bucket: buckets.SeaweedFS,
        store: Host,
        machines: list[Machine],
        balancer: Balancer,
    ) -> None:
        self.network, self.databases, self.balancer = network, databases, balancer
        self.started, self.machines = tuple(machines), machines
        """The second without those that were lost."""
        self._folder, self._bucket, self._store = folder, bucket, store
        self._ledger: Ledger | None = None

    @property
    def address(self) -> Address:
        """HAProxy's."""
        return Address(ae_title=AE_TITLE, host=self.balancer.host.address, port=DICOM_PORT)

    def ledger(self) -> Ledger:
        """The one that the primary holds."""
        self._ledger = self._ledger or Ledger.open(self._folder / "outside", self.databases.primary.url(DATABASE))
        return self._ledger

    def forget(self) -> None:
        """Give the ledger back: its server goes away."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def counts(self) -> dict[InstanceState, int]:
        """Instances in each state; who waits need not ask fifty times a second."""
        time.sleep(0.2)
        return queries.counts(self.ledger())

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """Pull the cable of the store's host."""
        self.network.unplug(self._store)
        try:
            yield
        finally:
            self.network.plug(self._store)

    @contextmanager
    def cut_off(self, machine: Machine) -> Iterator[None]:
        """Let a machine reach everybody but the database."""
        with self.network.cut(machine.host, self.databases.hosts):
            yield

    def lose(self, machine: Machine) -> None:
        """Lose a machine for good."""
        self.machines.remove(machine)
        machine.lose()

    def held(self) -> Held:
        """All that it knows and has; what a lost machine had on its own disk nobody has."""
        return Held(
            rows=queries.recent(self.ledger(), 2**31),
            files=_files(self._bucket.url),
            unfinished=sum(len(list((each.spool / "incoming").iterdir())) for each in self.machines),
        )

    def shut_down(self) -> None:
        """Stop all roles on all machines."""
        for machine in self.machines:
            machine.shut_down()


def _files(url: str) -> Iterator[tuple[str, bytes]]:
    client = buckets.raw_client(url)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=buckets.BUCKET):
        for name in (each["Key"] for each in page.get("Contents", ()) if each["Key"].endswith(".dcm")):
            yield Path(name).stem, client.get_object(Bucket=buckets.BUCKET, Key=name)["Body"].read()


@contextmanager
def cluster(
    network: Network,
    folder: Path,
    profile: Path,
    archives: Sequence[Archive],
    machines: int,
    deliverers: int,
    more_of_url: str = "",
) -> Iterator[Cluster]:
    """Start everything, and wait until HAProxy finds every receiver ready."""
    with ExitStack() as stack:
        pair = stack.enter_context(databases(network))
        store = network.host("store")
        (folder / "store").mkdir(parents=True)
        bucket = buckets.SeaweedFS(folder / "store", store.address, store.within)
        stack.callback(bucket.stop)
        balancer = network.host("lb")
        hosts = [network.host(f"xr{number}") for number in range(1, machines + 1)]
        shared = _shared(folder, pair.url + more_of_url, bucket, balancer) | settings(profile, archives)
        made = []
        for number, host in enumerate(hosts):
            roles = [role for role in ROLES if role != "deliver" or number < deliverers]
            own = {"listen": {"host": host.address, **shared["listen"]}, "web": {"host": host.address, **shared["web"]}}
            made.append(Machine(folder / f"xr{number + 1}", host, roles, network, **(shared | own)))
        node = Cluster(network, folder, pair, bucket, store, made, Balancer(folder / "lb", balancer, hosts))
        stack.callback(node.forget)
        try:
            for machine in made:
                machine.begin()
            for machine in made:
                machine.wait_ready()
            stack.enter_context(node.balancer)
            yield node
            node.shut_down()
        except BaseException:
            for machine in made:
                machine.give_up()
            raise


def _shared(folder: Path, url: str, bucket: buckets.SeaweedFS, balancer: Host) -> dict[str, Any]:
    """Sections that every machine has, but for its own address."""
    password, users = folder / "ledger.password", folder / "users.yaml"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    UserFile(users).add("operator", UserRole.OPERATOR, "a-password-of-tests")
    store = {
        "kind": "s3",
        "endpoint": bucket.url,
        "bucket": buckets.BUCKET,
        "credentials": str(buckets.credentials_file(folder / "credentials")),
        "allow_plaintext": True,
    }
    listen = {
        "proxy_protocol": [balancer.address],
        "allow_plaintext": True,
        "max_associations": 64,
        "max_associations_per_host": 2 * ASSOCIATIONS,
    }
    return {
        "listen": listen,
        "spool": {"store": store},
        "ledger": {"url": url, "password": str(password)},
        "web": {"port": PAGE_PORT, "users": str(users), "proxies": [balancer.address]},
    }
