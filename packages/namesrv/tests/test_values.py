"""What may be registered."""

from dataclasses import replace

import pytest
from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.namesrv.core.values import BrokerIdentity, RefusalCode, TopicQueues, identity_problem, topic_problem

IDENTITY = BrokerIdentity("DefaultCluster", "broker-a", 0, 1, "10.0.0.1:10911", "10.0.0.1:10921")
QUEUES = TopicQueues(4, 4, 6, 0)


@pytest.mark.parametrize(
    "identity",
    [
        IDENTITY,
        replace(IDENTITY, broker_id=3, zone="zone-1", master_epoch=7),
        replace(IDENTITY, remoting_address=""),
        replace(IDENTITY, mesh_address=""),
        replace(IDENTITY, remoting_address="broker-a.example.com:1"),
        replace(IDENTITY, remoting_address="[::1]:65535"),
        replace(IDENTITY, cluster="집단", broker_name="b" * 127),
    ],
)
def test_valid_identities(identity: BrokerIdentity) -> None:
    """Names of any script, either listener alone, host names and IPv6 addresses are fine."""
    assert identity_problem(identity) is None


@pytest.mark.parametrize(
    ("identity", "problem"),
    [
        (replace(IDENTITY, cluster=""), "cluster is empty"),
        (replace(IDENTITY, broker_name="b" * 128), "broker_name has 128 characters"),
        (replace(IDENTITY, broker_name="broker a"), "broker_name is 'broker a'; spaces"),
        (replace(IDENTITY, broker_name="broker\n"), "broker_name is"),
        (replace(IDENTITY, zone="z\x00"), "zone is"),
        (replace(IDENTITY, broker_id=-1), "broker_id is -1"),
        (replace(IDENTITY, master_epoch=-1), "master_epoch is -1"),
        (replace(IDENTITY, remoting_address="", mesh_address=""), "remoting_address and mesh_address are both empty"),
        (replace(IDENTITY, remoting_address="10.0.0.1"), "remoting_address is '10.0.0.1'; it must be host:port"),
        (replace(IDENTITY, remoting_address=":10911"), "remoting_address is"),
        (replace(IDENTITY, mesh_address="host:0"), "mesh_address is 'host:0'; its port"),
        (replace(IDENTITY, mesh_address="host:65536"), "mesh_address is"),
        (replace(IDENTITY, mesh_address="host:٣"), "mesh_address is"),
        (replace(IDENTITY, remoting_address="h" * 257 + ":1000"), "remoting_address has 262 characters"),
    ],
)
def test_invalid_identities_name_the_field(identity: BrokerIdentity, problem: str) -> None:
    """The text begins with the field that is wrong."""
    assert (identity_problem(identity) or "").startswith(problem)


@pytest.mark.parametrize("topic", ["TopicA", "%RETRY%group+TopicA", "rmq_sys_wheel_timer", "t" * 255])
def test_valid_topics(topic: str) -> None:
    """Retry topics are topics, and 255 characters are the most."""
    assert topic_problem(topic, QUEUES) is None


@pytest.mark.parametrize(
    ("topic", "queues", "problem"),
    [
        ("", QUEUES, "topic_name is empty"),
        ("t" * 256, QUEUES, "topic_name has 256 characters"),
        ("a b", QUEUES, "topic_name is"),
        ("T", QUEUES._replace(read_queue_nums=-1), "read_queue_nums is -1"),
        ("T", QUEUES._replace(write_queue_nums=65_537), "write_queue_nums is 65537"),
        ("T", QUEUES._replace(perm=8), "perm is 8"),
        ("T", QUEUES._replace(perm=-1), "perm is -1"),
    ],
)
def test_invalid_topics_name_the_field(topic: str, queues: TopicQueues, problem: str) -> None:
    """The text begins with the field that is wrong."""
    assert (topic_problem(topic, queues) or "").startswith(problem)


def test_refusal_codes_are_those_of_the_mesh_api() -> None:
    """Each code has the same name and number on the wire, and there is no other but UNSPECIFIED."""
    on_the_wire = {name.removeprefix("REFUSAL_CODE_"): number for name, number in pb.RefusalCode.items()}
    assert on_the_wire == {"UNSPECIFIED": 0, **{code.name: code.value for code in RefusalCode}}
