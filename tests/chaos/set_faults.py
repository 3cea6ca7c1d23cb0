"""What may happen to a set: each fault begins on entering, and what it took away is there again on leaving.

A fault waits for nothing to be whole again; who lets it happen does (`sets.py`).
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from tests.chaos import popping
from tests.e2e.broker_set import BrokerSetDeployment
from tests.e2e.process import ManagedProcess

LEASES_S = 3.0
"""What is to outlast its lease lasts longer than this at least."""


@contextlib.contextmanager
def master_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to the master."""
    with killed(deployment, [deployment.master()]):
        yield


@contextlib.contextmanager
def slave_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to a slave."""
    with killed(deployment, [deployment.slaves()[0]]):
        yield


@contextlib.contextmanager
def master_and_slave_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to the master and a slave at once: the last one takes nothing until one of them is back."""
    with killed(deployment, [deployment.master(), deployment.slaves()[0]]):
        yield


@contextlib.contextmanager
def all_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to all brokers at once."""
    with killed(deployment, list(deployment.remoting)):
        yield


@contextlib.contextmanager
def master_stopped(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGTERM to the master: it hands over."""
    name = deployment.master()
    deployment.process(name).stop()
    yield
    deployment.start_broker(name)


@contextlib.contextmanager
def master_frozen(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGSTOP to the master, for longer than its lease; it comes back as if nothing had been."""
    with frozen(deployment.process(deployment.master())):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def slave_frozen(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGSTOP to a slave."""
    with frozen(deployment.process(deployment.slaves()[0])):
        yield


@contextlib.contextmanager
def controller_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to the active controller."""
    name = deployment.active_controller()
    deployment.controllers.process(name).kill()
    yield
    deployment.controllers.start(name)


@contextlib.contextmanager
def controller_and_master_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """Both at once: nobody is elected before the stand-by is active."""
    master = deployment.master()
    with controller_killed(deployment), killed(deployment, [master]):
        yield


@contextlib.contextmanager
def etcd_leader_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to etcd's leader."""
    index = deployment.etcd.leader()
    deployment.etcd.kill(index)
    yield
    deployment.etcd.start(index)


@contextlib.contextmanager
def etcd_leader_frozen(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGSTOP to etcd's leader."""
    index = deployment.etcd.leader()
    deployment.etcd.freeze(index)
    yield
    deployment.etcd.thaw(index)


@contextlib.contextmanager
def etcd_majority_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to two of etcd's three members: nothing of the set can change."""
    first = deployment.etcd.leader()
    for index in (first, (first + 1) % 3):
        deployment.etcd.kill(index)
    yield
    for index in (first, (first + 1) % 3):
        deployment.etcd.start(index)


@contextlib.contextmanager
def namesrv_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to the name server."""
    deployment.process("namesrv").kill()
    yield
    deployment.start_namesrv()


@contextlib.contextmanager
def master_moved(deployment: BrokerSetDeployment) -> Iterator[None]:
    """An operator has a slave elected, over a master that lives."""
    before = deployment.status()
    target = next(each for each in before["sync_state_set"] if each != before["master_id"])
    deployment.controllers.command("elect-master", "--broker-name", popping.BROKER_NAME, "--broker-id", str(target))
    yield


@contextlib.contextmanager
def killed(
    deployment: BrokerSetDeployment, names: Sequence[str], start: Callable[[str], object] | None = None
) -> Iterator[None]:
    """SIGKILL to these; they are started again, as brokers where nothing else is said."""
    for name in names:
        deployment.process(name).kill()
    yield
    for name in names:
        (start or deployment.start_broker)(name)


@contextlib.contextmanager
def frozen(*processes: ManagedProcess) -> Iterator[None]:
    """SIGSTOP to all of these; they come back as if nothing had been."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


MakeFault = Callable[[BrokerSetDeployment], contextlib.AbstractContextManager[None]]
FAULTS: dict[str, MakeFault] = {
    "master killed": master_killed,
    "master frozen": master_frozen,
    "master stopped": master_stopped,
    "master moved": master_moved,
    "slave killed": slave_killed,
    "slave frozen": slave_frozen,
    "master and slave killed": master_and_slave_killed,
    "all brokers killed": all_killed,
    "controller killed": controller_killed,
    "controller and master killed": controller_and_master_killed,
    "etcd leader killed": etcd_leader_killed,
    "etcd leader frozen": etcd_leader_frozen,
    "etcd majority killed": etcd_majority_killed,
    "name server killed": namesrv_killed,
}
