"""The official Java and Python gRPC clients against a started cluster, at length.

tests/e2e/test_official_python.py has a shorter run for every change. The scenarios must also hold against Apache's
servers (`--deployment apache`), but for two of the Python client: it sends its settings to a proxy that was started
again only minutes later, until then Apache refuses its receives, and ours must not; and it does not trust the
certificate that Apache's proxy makes for itself.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable

import pytest
import trustme

from tests.interop import grpc_scenarios
from tests.interop.conftest import NewGrpcClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.grpc_clients import GrpcClient

pytestmark = pytest.mark.verify

COUNT = 10_000
COUNT_TLS = 500


def test_every_message_is_received_and_acknowledged_once(
    grpc_deployment: Deployment,
    grpc_client: GrpcClient,
    running: contextlib.ExitStack,
    topic: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Ten thousand messages, by a simple and by a push consumer: none lost, none twice, each as it was sent."""
    grpc_deployment.make_topic(topic)
    rates = grpc_scenarios.many_messages(grpc_client, running, topic, COUNT)
    record_property("rates", dataclasses.asdict(rates))
    print(rates)


def test_a_neglected_message_comes_again_after_its_invisible_time(
    grpc_deployment: Deployment, grpc_client: GrpcClient, running: contextlib.ExitStack, topic: str
) -> None:
    """Those that were acknowledged do not."""
    grpc_deployment.make_topic(topic)
    grpc_scenarios.Neglected(grpc_client, running, topic).judge()


def test_a_refused_message_comes_again(
    grpc_deployment: Deployment, grpc_client: GrpcClient, running: contextlib.ExitStack, topic: str
) -> None:
    """A push consumer gets it once more, with its attempt counted."""
    grpc_deployment.make_topic(topic)
    grpc_scenarios.refused_once(grpc_client, running, topic)


def test_tags_choose_messages(
    grpc_deployment: Deployment, grpc_client: GrpcClient, running: contextlib.ExitStack, topic: str
) -> None:
    """A subscription `TagA || TagC` gets those and nothing of TagB."""
    grpc_deployment.make_topic(topic)
    grpc_scenarios.tags_choose(grpc_client, running, topic)


def test_messages_cross_from_remoting_to_grpc(
    grpc_deployment: Deployment, grpc_client: GrpcClient, running: contextlib.ExitStack, topic: str
) -> None:
    """Sent to the broker's Remoting port, received through the proxy."""
    grpc_scenarios.from_remoting(grpc_deployment, grpc_client, running, topic)


def test_messages_cross_from_grpc_to_remoting(grpc_deployment: Deployment, grpc_client: GrpcClient, topic: str) -> None:
    """Sent through the proxy, pulled from the broker's Remoting port."""
    grpc_scenarios.to_remoting(grpc_deployment, grpc_client, topic)


@pytest.mark.parametrize("victim", ["proxy", "broker"])
def test_nothing_acknowledged_is_lost_by_a_kill(
    java_command: str,
    deployment_kind: str,
    new_grpc_client: NewGrpcClient,
    running: contextlib.ExitStack,
    topic: str,
    tmp_path: pathlib.Path,
    victim: str,
    record_property: Callable[[str, object], None],
) -> None:
    """SIGKILL under load: producer, simple and push consumer come back by themselves within 5 s of the restart."""
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", {}, with_proxy=True))
    load = grpc_scenarios.Load(cluster, new_grpc_client(cluster), running, topic, with_push=True)
    kills = {
        "proxy": (cluster.kill_proxy, cluster.start_proxy),
        "broker": (cluster.kill_broker, cluster.start_broker),
    }
    recovery_ms = load.survive(*kills[victim])
    sent = load.end()
    record_property("recovery_ms", dict(recovery_ms))
    print(f"{len(sent)} messages, ms from the restart to the first success: {dict(recovery_ms)}")


def test_tls_and_plain_text_on_one_port(
    java_command: str,
    deployment_kind: str,
    new_grpc_client: NewGrpcClient,
    running: contextlib.ExitStack,
    topic: str,
    tmp_path: pathlib.Path,
) -> None:
    """The Java client speaks TLS unless it is told otherwise: both kinds of clients reach the same proxy."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    tls = {"mode": "permissive", "cert_path": str(paths["cert"]), "key_path": str(paths["key"])}
    settings = {f"listeners.grpc.tls.{key}": value for key, value in tls.items()}
    settings["listeners.grpc.host"] = "127.0.0.1"
    cluster = running.enter_context(
        DEPLOYMENTS[deployment_kind](tmp_path / "cluster", {}, with_proxy=True, proxy_settings=settings)
    )
    plain = new_grpc_client(cluster)
    # The Java client trusts anyone; the Python one whom gRPC's own variable names.
    trust = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": os.fspath(paths["ca"])}
    secure = dataclasses.replace(plain, tls=True, environ={**plain.environ, **trust})
    for name, client in (("secure", secure), ("plain", plain)):
        cluster.make_topic(f"{name}_{topic}")
        grpc_scenarios.many_messages(client, running, f"{name}_{topic}", COUNT_TLS)
