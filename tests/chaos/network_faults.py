"""What may happen to a set's machines and the network between them, on a private one (`network.py`).

As in `set_faults.py` each begins on entering, and is over on leaving.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator

from tests.chaos.network import PrivateNetwork
from tests.chaos.set_faults import LEASES_S, frozen, killed
from tests.e2e.broker_set import CONTROLLERS, PROXIES, BrokerSetDeployment
from tests.etcd_cluster import machine_name

UNSYNCED_BYTES = 2_048
"""What a machine that loses power had not written yet, of its commit log: less than comes in between two flushes."""

MakeNetworkFault = Callable[[BrokerSetDeployment, PrivateNetwork], contextlib.AbstractContextManager[None]]


# -- cuts --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def master_cut_off(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Nobody reaches the master, and it reaches nobody: apache/rocketmq#7017."""
    master = deployment.master()
    with network.parted([master], network.others([master])):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def master_unheard(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The master hears everybody, and nobody hears it."""
    master = deployment.master()
    with network.silenced([master], network.others([master])):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def master_deaf(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Everybody hears the master, and it hears nobody."""
    master = deployment.master()
    with network.silenced(network.others([master]), [master]):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def master_cut_from_set(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Only clients and proxies reach the master: they go on sending, and must not be told that anything is stored."""
    master = deployment.master()
    with network.parted([master], network.others([master, *PROXIES], clients=False)):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def master_cut_from_slaves(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The master keeps its lease, and reaches none of the others that hold its messages."""
    master = deployment.master()
    with network.parted([master], [name for name in deployment.broker_names if name != master]):
        yield


@contextlib.contextmanager
def master_cut_from_controllers(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The master's beats are not heard: another is elected, whom slaves and clients have to believe."""
    with network.parted([deployment.master()], CONTROLLERS):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def slave_cut_off(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Nobody reaches a slave, and it reaches nobody."""
    slave = deployment.slaves()[0]
    with network.parted([slave], network.others([slave])):
        yield


@contextlib.contextmanager
def master_and_slave_cut_off(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """A room with the master, a slave and the active controller is cut off: apache/rocketmq#6662.

    Clients and proxies reach both. The rest, with etcd, elects the third broker.
    """
    active = deployment.active_controller()
    room = [deployment.master(), deployment.slaves()[0], active]
    with network.parted(room, network.others([*room, *PROXIES], clients=False)):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def etcd_leader_cut_off(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The other two elect a leader; controllers find it."""
    leader = machine_name(deployment.etcd.leader())
    with network.parted([leader], network.others([leader])):
        yield


@contextlib.contextmanager
def controller_cut_from_etcd(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The active controller loses its lease; brokers hear two that say they are one."""
    active = deployment.active_controller()
    with network.parted([active], [machine_name(index) for index in range(len(deployment.etcd.endpoints))]):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def streams_cut(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Each connection of the master ends, on both ends."""
    network.cut_streams(deployment.master())
    yield


# -- machines ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def controllers_frozen(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """SIGSTOP to both controllers, for longer than any lease; both come back as if nothing had been."""
    with frozen(*map(deployment.controllers.process, CONTROLLERS)):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def master_disk_full(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """No byte is left on the master's disk."""
    with network.full(deployment.master()):
        yield


@contextlib.contextmanager
def slave_disk_full(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """No byte is left on a slave's disk."""
    with network.full(deployment.slaves()[0]):
        yield


@contextlib.contextmanager
def master_loses_power(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """The master's machine starts anew, without what it had not written to its disk."""
    with _powerless(deployment, network, deployment.master()):
        yield


@contextlib.contextmanager
def slave_loses_power(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """A slave's machine starts anew, without what it had not written to its disk."""
    with _powerless(deployment, network, deployment.slaves()[0]):
        yield


@contextlib.contextmanager
def _powerless(deployment: BrokerSetDeployment, network: PrivateNetwork, name: str) -> Iterator[None]:
    with killed(deployment, [name]):
        newest = deployment.directory(name) / "commitlog" / deployment.log_files(name)[-1]
        lose_end(newest, UNSYNCED_BYTES)
        network.boot(name)
        yield


def lose_end(path: pathlib.Path, size_bytes: int) -> None:
    """Zeros in place of the last bytes that were written to a file of a size of its own."""
    with path.open("r+b") as file:
        end = len(file.read().rstrip(b"\0"))
        start = max(0, end - size_bytes)
        file.seek(start)
        file.write(b"\0" * (end - start))


FAULTS: dict[str, MakeNetworkFault] = {
    "master cut off": master_cut_off,
    "master unheard": master_unheard,
    "master deaf": master_deaf,
    "master cut from the set": master_cut_from_set,
    "master cut from slaves": master_cut_from_slaves,
    "master cut from controllers": master_cut_from_controllers,
    "slave cut off": slave_cut_off,
    "master and slave cut off": master_and_slave_cut_off,
    "etcd leader cut off": etcd_leader_cut_off,
    "controller cut from etcd": controller_cut_from_etcd,
    "master's streams cut": streams_cut,
    "controllers frozen": controllers_frozen,
    "master's disk full": master_disk_full,
    "slave's disk full": slave_disk_full,
    "master loses power": master_loses_power,
    "slave loses power": slave_loses_power,
}
