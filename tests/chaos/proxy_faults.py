"""What may happen to the proxies between gRPC clients and a set; as in `set_faults.py` it is over on leaving."""

import contextlib
import time
from collections.abc import Iterator

from tests.chaos.network import PrivateNetwork
from tests.chaos.network_faults import MakeNetworkFault
from tests.chaos.set_faults import LEASES_S, MakeFault, frozen, killed
from tests.e2e.broker_set import PROXIES, BrokerSetDeployment
from tests.e2e.http_client import metric


@contextlib.contextmanager
def proxy_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to the proxy that clients are at: they go to the other."""
    with killed(deployment, [busiest(deployment)], deployment.start_proxy):
        yield


@contextlib.contextmanager
def proxies_killed(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGKILL to both: clients wait for one to come back."""
    with killed(deployment, PROXIES, deployment.start_proxy):
        yield


@contextlib.contextmanager
def proxy_stopped(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGTERM to the proxy that clients are at: it lets them end what they have begun."""
    name = busiest(deployment)
    deployment.process(name).stop()
    yield
    deployment.start_proxy(name)


@contextlib.contextmanager
def proxy_frozen(deployment: BrokerSetDeployment) -> Iterator[None]:
    """SIGSTOP to the proxy that clients are at, which no connection tells them; it does later what it was asked."""
    with frozen(deployment.process(busiest(deployment))):
        time.sleep(LEASES_S)
        yield


@contextlib.contextmanager
def proxy_cut_from_brokers(deployment: BrokerSetDeployment, network: PrivateNetwork) -> Iterator[None]:
    """Clients reach their proxy, and it reaches none of the brokers."""
    with network.parted([busiest(deployment)], deployment.broker_names):
        yield


def busiest(deployment: BrokerSetDeployment) -> str:
    """The proxy with the most Telemetry streams, of which each client has one."""
    return max(PROXIES, key=lambda name: metric(deployment.proxies[name]["http"], "apogeemq_proxy_telemetry_streams"))


FAULTS: dict[str, MakeFault] = {
    "proxy killed": proxy_killed,
    "both proxies killed": proxies_killed,
    "proxy stopped": proxy_stopped,
    "proxy frozen": proxy_frozen,
}
NETWORK_FAULTS: dict[str, MakeNetworkFault] = {"proxy cut from brokers": proxy_cut_from_brokers}
"""Those that need a private network."""
