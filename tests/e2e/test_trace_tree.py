"""One message's whole way, read back from what the services exported: exact parents and links, no orphans."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.codes import ResponseCode

from tests.config_files import topic_config, write_config_files
from tests.e2e.process import Ready, poll_until, start_all_in_one
from tests.e2e.trace_collector import CollectedSpan, TraceCollector
from tests.e2e.wire_client import WireClient, send_fields

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM_TIMEOUT_S = 90.0
SPANS_TIMEOUT_S = 20.0
PUBLIC = "apache.rocketmq.v2.MessagingService"
MESH = "apogeemq.mesh.v1.BrokerService"
TRANSACTION_TOPIC = "TracedTransactions"
PROXY, BROKER = "apogeemq-proxy", "apogeemq-broker"

Step = tuple[str, str, str]
"""Service, name of the span, its kind."""


def over_the_mesh(method: str) -> list[Step]:
    """The hop from the proxy to the broker."""
    return [(PROXY, f"{MESH}/{method}", "CLIENT"), (BROKER, f"{MESH}/{method}", "SERVER")]


def sent_by_grpc(role: str, topic: str) -> list[Step]:
    return [
        (role, f"send {topic}", "PRODUCER"),
        (PROXY, f"{PUBLIC}/SendMessage", "SERVER"),
        *over_the_mesh("SendMessage"),
        (BROKER, "append", "INTERNAL"),
    ]


def sent_by_remoting(role: str, topic: str) -> list[Step]:
    return [(role, f"send {topic}", "PRODUCER"), (BROKER, "SEND_MESSAGE_V2", "SERVER"), (BROKER, "append", "INTERNAL")]


def acknowledged(role: str, topic: str) -> list[Step]:
    return [(role, f"ack {topic}", "CLIENT"), (PROXY, f"{PUBLIC}/AckMessage", "SERVER"), *over_the_mesh("AckMessage")]


def ended(role: str, topic: str) -> list[Step]:
    return [
        (role, f"commit {topic}", "CLIENT"),
        (PROXY, f"{PUBLIC}/EndTransaction", "SERVER"),
        *over_the_mesh("EndTransaction"),
    ]


def received(role: str, topic: str) -> list[Step]:
    return [
        (role, f"receive {topic}", "CLIENT"),
        (PROXY, f"{PUBLIC}/ReceiveMessage", "SERVER"),
        *over_the_mesh("PopMessage"),
    ]


@pytest.fixture(scope="module")
def collector() -> Iterator[TraceCollector]:
    with TraceCollector() as running:
        yield running


@contextlib.contextmanager
def services(collector: TraceCollector, directory: pathlib.Path, *arguments: str) -> Iterator[Ready]:
    """Name server, broker and proxy, which export their spans; producers are soon asked about open transactions."""
    process = start_all_in_one(
        directory / "data",
        log_directory=directory / "logs",
        settings={"broker.transactions.transaction_timeout_ms": "500"},
        arguments=arguments,
        environ=collector.environ,
    )
    with process:
        yield process.wait_ready()
        process.stop()


@pytest.fixture(scope="module")
def listeners(collector: TraceCollector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """Each service is a process of its own."""
    directory = tmp_path_factory.mktemp("traced")
    topics = [topic_config(TRANSACTION_TOPIC, message_type="TRANSACTION")]
    write_config_files(directory / "data" / "broker" / "config", topics)
    with services(collector, directory, "--processes") as ready:
        yield ready


def run_clients(collector: TraceCollector, ready: Ready, role: str, protocol: str, topic: str, count: int) -> list[str]:
    """Run a process of traced clients to its end; gives the message ids that it dealt with."""
    address = ready.listeners["proxy.grpc" if protocol == "grpc" else "namesrv.remoting"]
    argv = [sys.executable, "-m", "tests.e2e.traced_clients", role, protocol, address, topic, str(count)]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **collector.environ},
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    ids: list[str] = json.loads(done.stdout)
    return ids


def make_topic(ready: Ready, topic: str) -> None:
    """Send one untraced message, so that no span of making the topic is in the trees."""
    with WireClient(ready.listeners["broker.remoting"]) as client:
        assert client.request(310, send_fields(topic, 0), b"untraced").code == ResponseCode.SUCCESS


def steps(chain: list[CollectedSpan]) -> list[Step]:
    return [(span.service, span.name, span.kind) for span in chain]


def chain_below(collector: TraceCollector, root: CollectedSpan) -> list[CollectedSpan]:
    """The spans of a root's trace, each the one child of the one before: nothing beside them, and no orphan."""
    spans = collector.trace(root.trace_id)
    chain = [root]
    while children := [span for span in spans if span.parent_id == chain[-1].span_id]:
        chain.append(children[0])
        assert len(children) == 1, collector.drawn()
    assert len(chain) == len(spans), collector.drawn()
    return chain


def chains(collector: TraceCollector, root: str, expected: list[Step], count: int) -> list[list[CollectedSpan]]:
    """The traces whose root has this name, once there are `count` and all of each has arrived."""

    def roots() -> list[CollectedSpan]:
        return [span for span in list(collector.spans) if span.name == root and not span.parent_id]

    poll_until(
        lambda: sum(len(collector.trace(span.trace_id)) for span in roots()) >= count * len(expected),
        SPANS_TIMEOUT_S,
        lambda: AssertionError(f"{count} times {expected} was due; there is\n{collector.drawn()}"),
    )
    found = [chain_below(collector, span) for span in roots()]
    assert [steps(chain) for chain in found] == [expected] * count, collector.drawn()
    return found


def contexts(chains_of_sends: list[list[CollectedSpan]]) -> Counter[tuple[str, str]]:
    """What consumers link to: the producers' spans."""
    return Counter((chain[0].trace_id, chain[0].span_id) for chain in chains_of_sends)


def links(spans: list[CollectedSpan]) -> Counter[tuple[str, str]]:
    return Counter(link for span in spans for link in span.links)


def test_from_a_grpc_producer_to_a_simple_consumer(collector: TraceCollector, listeners: Ready) -> None:
    """Two messages at the same time, whose entries may share a frame of the mesh, stay two traces all the way."""
    topic = "TracedSimple"
    make_topic(listeners, topic)
    sent_ids = run_clients(collector, listeners, "send", "grpc", topic, 2)
    received_ids = run_clients(collector, listeners, "receive", "grpc", topic, 3)
    sends = chains(collector, f"send {topic}", sent_by_grpc("send", topic), 2)
    acks = chains(collector, f"ack {topic}", acknowledged("receive", topic), 3)
    assert {chain[0].attributes["messaging.message.id"] for chain in sends} == set(sent_ids)
    assert set(sent_ids) < set(received_ids)  # and the untraced one
    asked = sum(span.name == f"receive {topic}" for span in list(collector.spans))  # once, or once for each message
    receives = chains(collector, f"receive {topic}", received("receive", topic), asked)
    assert links([chain[0] for chain in receives]) == contexts(sends)
    for chain in sends + receives + acks:
        assert {span.status for span in chain} <= {"UNSET", "OK"}


def test_from_a_grpc_producer_to_a_push_consumer(collector: TraceCollector, listeners: Ready) -> None:
    """The handler's span links to the producer's, and what settles the message hangs below the handler."""
    topic = "TracedPush"
    make_topic(listeners, topic)
    run_clients(collector, listeners, "send", "grpc", topic, 2)
    run_clients(collector, listeners, "process", "grpc", topic, 3)
    sends = chains(collector, f"send {topic}", sent_by_grpc("send", topic), 2)
    expected = [("process", f"process {topic}", "CONSUMER"), *acknowledged("process", topic)]
    processed = chains(collector, f"process {topic}", expected, 3)
    assert links([chain[0] for chain in processed]) == contexts(sends)


def test_from_a_remoting_producer_to_a_grpc_consumer(collector: TraceCollector, listeners: Ready) -> None:
    """The context travels in the message, whatever protocol it goes in by and comes out by."""
    topic = "TracedAcross"
    make_topic(listeners, topic)
    run_clients(collector, listeners, "send", "remoting", topic, 2)
    run_clients(collector, listeners, "process", "grpc", topic, 3)
    sends = chains(collector, f"send {topic}", sent_by_remoting("send", topic), 2)
    expected = [("process", f"process {topic}", "CONSUMER"), *acknowledged("process", topic)]
    processed = chains(collector, f"process {topic}", expected, 3)
    assert links([chain[0] for chain in processed]) == contexts(sends)


def test_from_a_grpc_producer_to_a_remoting_consumer(collector: TraceCollector, listeners: Ready) -> None:
    """The other way round."""
    topic = "TracedBack"
    make_topic(listeners, topic)
    run_clients(collector, listeners, "send", "grpc", topic, 2)
    run_clients(collector, listeners, "process", "remoting", topic, 3)
    sends = chains(collector, f"send {topic}", sent_by_grpc("send", topic), 2)
    processed = chains(collector, f"process {topic}", [("process", f"process {topic}", "CONSUMER")], 3)
    assert links([chain[0] for chain in processed]) == contexts(sends)


def test_transactions_of_a_grpc_producer(collector: TraceCollector, listeners: Ready) -> None:
    """Each end is a trace of its own down to the broker, of the producer's accord or after a question; so is that."""
    topic = TRANSACTION_TOPIC
    run_clients(collector, listeners, "transact", "grpc", topic, 1)
    halves = chains(collector, f"send {topic}", sent_by_grpc("transact", topic), 2)
    ends = chains(collector, f"commit {topic}", ended("transact", topic), 2)
    [check] = chains(collector, f"check {topic}", [("transact", f"check {topic}", "CONSUMER")], 1)
    assert links([chain[0] for chain in ends]) == contexts(halves)
    assert links(check) < contexts(halves)
    for chain in [*halves, *ends, check]:
        assert {span.status for span in chain} <= {"UNSET", "OK"}


def test_services_that_share_a_process(collector: TraceCollector, tmp_path: pathlib.Path) -> None:
    """The proxy asks the broker beside it without a connection: the same tree, and each span names its own service."""
    topic = "TracedTogether"
    with services(collector, tmp_path) as ready:
        make_topic(ready, topic)
        run_clients(collector, ready, "send", "grpc", topic, 2)
        run_clients(collector, ready, "receive", "grpc", topic, 3)
    chains(collector, f"send {topic}", sent_by_grpc("send", topic), 2)
    chains(collector, f"ack {topic}", acknowledged("receive", topic), 3)
