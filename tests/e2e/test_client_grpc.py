"""apogeemq-client-grpc against a real server: nothing lost, redelivery, and recovery from SIGKILL.

Time limits here are what the client promises, or far above what a busy machine needs.
"""

import asyncio
import contextlib
import itertools
import pathlib
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet

import pytest
from apogeemq.client_api.errors import ClientError, ReceiveFailed, SettleFailed
from apogeemq.client_grpc import (
    Message,
    Producer,
    PushConsumer,
    ReceivedMessage,
    Reject,
    RetryLater,
    SimpleConsumer,
)

from tests.e2e.process import ManagedProcess, Ready, fixed_ports, start_all_in_one, start_service
from tests.e2e.wire_client import WireClient, pull_all

WAIT_S = 30.0
RECOVERY_S = 5.0
MESSAGES = 10_000
BATCH = 20
IN_FLIGHT = 16
IN_TRANSIT = 64  # one receive takes 32 at most, and one more may have been answered

ROOT = pathlib.Path(__file__).resolve().parents[2]

_numbers = itertools.count(1)


def fresh(name: str) -> str:
    """A topic or group that no other test of this run has."""
    return f"CG_{name}_{next(_numbers)}"


@pytest.fixture
def proxy(server: Ready) -> str:
    """The proxy's gRPC address."""
    return server.listeners["proxy.grpc"]


async def wait_for(is_done: Callable[[], bool]) -> None:
    """Ask again and again; fails after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not is_done():  # noqa: ASYNC110 — what is waited for happens in many places
            await asyncio.sleep(0.02)


async def send_numbered(producer: Producer, topic: str, count: int) -> None:
    """Send the bodies "0", "1", … in batches, several at a time."""
    batches = iter([range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)])

    async def send_some() -> None:
        for batch in batches:
            await producer.send_batch([Message(topic, b"%d" % number) for number in batch], timeout_s=10.0)

    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))


def numbered(count: int) -> set[bytes]:
    return {b"%d" % number for number in range(count)}


async def test_two_push_consumers_share_ten_thousand_messages(proxy: str) -> None:
    """None is lost, none comes twice while all is well, and both members of the group get some."""
    topic, group = fresh("push"), fresh("push")
    bodies: Counter[bytes] = Counter()
    by_consumer: Counter[str] = Counter()

    def handler(consumer: str) -> Callable[[ReceivedMessage], Coroutine[None, None, None]]:
        async def handle(message: ReceivedMessage) -> None:
            bodies[message.body] += 1
            by_consumer[consumer] += 1

        return handle

    async with Producer(proxy) as producer:
        await producer.send(Message(topic, b"0"))  # makes the topic
        async with (
            PushConsumer(proxy, group=group, subscriptions={topic: "*"}, handler=handler("first")),
            PushConsumer(proxy, group=group, subscriptions={topic: "*"}, handler=handler("second")),
        ):
            await send_numbered(producer, topic, MESSAGES)
            await wait_for(lambda: bodies.keys() >= numbered(MESSAGES))
    bodies[b"0"] -= 1
    assert bodies == dict.fromkeys(numbered(MESSAGES), 1)
    assert set(by_consumer) == {"first", "second"}


async def test_two_simple_consumers_share_ten_thousand_messages(proxy: str) -> None:
    """Received and acknowledged in bulk; afterwards there is nothing left for anybody."""
    topic, group = fresh("simple"), fresh("simple")
    bodies: Counter[bytes] = Counter()

    async def consume(consumer: SimpleConsumer) -> None:
        while True:
            messages = await consumer.receive(32, invisible_s=60.0, await_s=0.5)
            bodies.update(message.body for message in messages)
            await consumer.ack_all(messages)

    async with Producer(proxy) as producer:
        await send_numbered(producer, topic, MESSAGES)
    async with (
        SimpleConsumer(proxy, group=group, subscriptions={topic: "*"}) as first,
        SimpleConsumer(proxy, group=group, subscriptions={topic: "*"}) as second,
    ):
        consuming = [asyncio.create_task(consume(each)) for each in (first, first, second, second)]
        await wait_for(lambda: len(bodies) >= MESSAGES or any(task.done() for task in consuming))
        for task in consuming:
            task.cancel()
        ends = await asyncio.gather(*consuming, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
    assert bodies == dict.fromkeys(numbered(MESSAGES), 1)


async def test_an_unacknowledged_message_comes_again(proxy: str) -> None:
    """Once its invisible time is over, to another consumer of the group too, with the next number of delivery."""
    topic, group = fresh("again"), fresh("again")
    async with Producer(proxy) as producer:
        sent = await producer.send(Message(topic, b"body", tag="t", keys=("k",), properties={"colour": "red"}))
    async with SimpleConsumer(proxy, group=group, subscriptions={topic: "*"}) as first:
        (message,) = await first.receive(invisible_s=30.0, await_s=10.0)
        shortened = await first.change_invisible(message, 1.0)
        with pytest.raises(SettleFailed):
            await first.ack(message)  # its receipt is void since the change
    async with SimpleConsumer(proxy, group=group, subscriptions={topic: "t"}) as second:
        (again,) = await receive_some(second)
        await second.ack(again)
        with pytest.raises(SettleFailed):
            await second.ack(shortened)
    assert (message.message_id, message.delivery_attempt) == (sent.message_id, 1)
    assert (again.message_id, again.delivery_attempt) == (sent.message_id, 2)
    assert (again.topic, again.tag, again.keys, again.properties) == (topic, "t", ("k",), {"colour": "red"})


async def receive_some(consumer: SimpleConsumer) -> Sequence[ReceivedMessage]:
    async with asyncio.timeout(WAIT_S):
        while not (messages := await consumer.receive(invisible_s=30.0, await_s=5.0)):
            pass
    return messages


async def test_too_short_an_invisible_time_is_refused_by_name(proxy: str) -> None:
    """The proxy's reason reaches the application, with its code."""
    topic = fresh("short")
    async with Producer(proxy) as producer:
        await producer.send(Message(topic, b"body"))
    async with SimpleConsumer(proxy, group=fresh("short"), subscriptions={topic: "*"}) as consumer:
        with pytest.raises(ReceiveFailed) as failure:
            await consumer.receive(invisible_s=1.0)
    assert failure.value.code_name == "ILLEGAL_INVISIBLE_TIME"


async def test_a_failed_message_comes_again_and_tags_filter(proxy: str) -> None:
    """RetryLater brings it back to the handler; what the subscription leaves out never comes."""
    topic = fresh("retry")
    seen: list[tuple[bytes, str, int]] = []

    async def handle(message: ReceivedMessage) -> None:
        seen.append((message.body, message.topic, message.delivery_attempt))
        if message.delivery_attempt == 1:
            raise RetryLater(1)

    async with Producer(proxy) as producer:
        await producer.send(Message(topic, b"other", tag="c"))
        async with PushConsumer(proxy, group=fresh("retry"), subscriptions={topic: "a || b"}, handler=handle):
            await producer.send(Message(topic, b"mine", tag="b"))
            await wait_for(lambda: len(seen) == 2)
    assert seen == [(b"mine", topic, 1), (b"mine", topic, 2)]


async def test_a_rejected_message_does_not_stop_the_others(proxy: str) -> None:
    """The handler gets what comes after it, however the server gives the message up."""
    topic, group = fresh("reject"), fresh("reject")
    handled: list[bytes] = []

    async def handle(message: ReceivedMessage) -> None:
        handled.append(message.body)
        if message.body == b"poison":
            raise Reject("it cannot be read")

    async with Producer(proxy) as producer:
        await producer.send_batch([Message(topic, b"poison"), Message(topic, b"fine")])
    async with PushConsumer(proxy, group=group, subscriptions={topic: "*"}, handler=handle, concurrency=1):
        await wait_for(lambda: sorted(handled) == [b"fine", b"poison"])


async def test_iteration_and_messages_from_remoting(proxy: str, server: Ready) -> None:
    """What the gRPC producer sends is read by Remoting, and an iteration gets all there is."""
    topic, group = fresh("cross"), fresh("cross")
    async with Producer(proxy) as producer:
        receipts = await producer.send_batch([Message(topic, b"%d" % number) for number in range(3)])
    with WireClient(server.listeners["broker.remoting"]) as client:
        stored = [record.body for queue in range(8) for record in pull_all(client, topic, group, queue)]
    assert sorted(stored) == [b"0", b"1", b"2"]
    received = []
    async with PushConsumer(proxy, group=group, subscriptions={topic: "*"}) as consumer:
        async with asyncio.timeout(WAIT_S):
            async for message in consumer:
                received.append(message.message_id)
                if len(received) == 3:
                    await consumer.ack(message)
                    break
    assert sorted(received) == sorted(receipt.message_id for receipt in receipts)


# -- what is written for users


def run_program(*words: str) -> str:
    """Standard output of a Python program that must succeed."""
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def readme_programs(proxy: str) -> dict[str, str]:
    """The programs of the package's README by name, with this proxy's address in them."""
    readme = (ROOT / "packages" / "client-grpc" / "README.md").read_text()
    programs = dict(re.findall(r"```python (\w+)\n(.*?)```", readme, re.DOTALL))
    return {
        name: text.replace("127.0.0.1:8081", proxy).replace("sleep(5)", "sleep(1)") for name, text in programs.items()
    }


def test_the_readmes_programs_run(proxy: str) -> None:
    """Each as it stands but for the address: one sends, the others receive and handle what was sent."""
    programs = readme_programs(proxy)
    assert programs.keys() == {"producer", "transaction", "simple", "push"}  # the second: test_grpc_client_kinds.py
    assert re.fullmatch(r"sent [0-9A-F]{34}\n", run_program("-c", programs["producer"]))
    assert run_program("-c", programs["simple"]) == "received order 7\n"
    assert run_program("-c", programs["push"]) == "handled order 7\n"


def test_the_quickstart_prints_what_its_readme_says(proxy: str) -> None:
    """The message's id, then the message."""
    printed = run_program(str(ROOT / "examples" / "client-grpc-quickstart" / "quickstart.py"), proxy)
    assert re.fullmatch(r"sent: FirstTopic [0-9A-F]{34}\nreceived: hello, queue \(delivery 1\)\n", printed), printed


# -- SIGKILL


def start_proxy(server: Ready, log_directory: pathlib.Path, port: str) -> ManagedProcess:
    """A proxy of its own in front of the server's broker."""
    settings = {
        "identity.namesrv_addr": server.listeners["namesrv.mesh"],
        "topics.auto_create": "true",
        "listeners.grpc.host": "127.0.0.1",
        "listeners.grpc.port": port,
        "listeners.remoting.host": "127.0.0.1",
        "listeners.remoting.port": "0",
        "listeners.http.port": "0",
    }
    config = ROOT / "deploy" / "proxy.toml"
    return start_service("proxy", config=config, settings=settings, log_directory=log_directory)


async def test_kill_9_of_the_proxy_alone(server: Ready, tmp_path: pathlib.Path) -> None:
    """Messages that a handler had in hand are acknowledged through the next proxy: nothing is lost, and a producer that
    waits meanwhile need not notice.
    """
    topic, group = fresh("front"), fresh("front")
    bodies: Counter[bytes] = Counter()
    held = asyncio.Event()
    go_on = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        bodies[message.body] += 1
        held.set()
        await go_on.wait()

    with contextlib.ExitStack() as proxies:
        first = proxies.enter_context(start_proxy(server, tmp_path / "first", "0"))
        address = (await asyncio.to_thread(first.wait_ready)).listeners["grpc"]
        async with Producer(address) as producer:
            await producer.send(Message(topic, b"before"))
            async with PushConsumer(address, group=group, subscriptions={topic: "*"}, handler=handle):
                await asyncio.wait_for(held.wait(), WAIT_S)
                await asyncio.to_thread(first.kill)
                sending = asyncio.create_task(producer.send(Message(topic, b"after"), timeout_s=WAIT_S))
                second = proxies.enter_context(start_proxy(server, tmp_path / "second", address.rpartition(":")[2]))
                await asyncio.to_thread(second.wait_ready)
                back = time.monotonic()
                await sending
                go_on.set()
                await wait_for(lambda: b"after" in bodies)
                assert time.monotonic() - back < RECOVERY_S
    assert bodies == {b"before": 1, b"after": 1}


async def test_kill_9_under_load(mortal: ManagedProcess, tmp_path: pathlib.Path) -> None:
    """Proxy and broker die amid sends and come back: no acknowledged message is lost, and both clients go on by
    themselves within seconds of the server being back.
    """
    ready = await asyncio.to_thread(mortal.wait_ready)
    proxy, topic, group = ready.listeners["proxy.grpc"], fresh("kill"), fresh("kill")
    acknowledged: dict[bytes, float] = {}
    received: dict[bytes, float] = {}
    is_over = asyncio.Event()
    numbers = itertools.count()

    async def handle(message: ReceivedMessage) -> None:
        received.setdefault(message.body, time.monotonic())

    async def send_on(producer: Producer) -> None:
        while not is_over.is_set():
            body = b"%d" % next(numbers)
            try:
                await producer.send(Message(topic, body))
            except ClientError:
                await asyncio.sleep(0.05)
            else:
                acknowledged[body] = time.monotonic()
                await asyncio.sleep(0.005)  # so that the two clients, in one process, have time for both

    with contextlib.ExitStack() as servers:
        async with Producer(proxy) as producer:
            await producer.send(Message(topic, b"first"))
            async with PushConsumer(proxy, group=group, subscriptions={topic: "*"}, handler=handle):
                senders = [asyncio.create_task(send_on(producer)) for _ in range(8)]
                await wait_for(lambda: len(acknowledged) >= 500 and len(received) >= 300)
                await asyncio.to_thread(mortal.kill)
                process = servers.enter_context(
                    start_all_in_one(
                        tmp_path / "data", log_directory=tmp_path / "second", ports=None, settings=fixed_ports(ready)
                    )
                )
                await asyncio.to_thread(process.wait_ready)
                back = time.monotonic()
                await wait_for(lambda: any(moment > back for moment in acknowledged.values()))
                await wait_for(
                    lambda: any(received.get(body, 0) > back for body in acknowledged if acknowledged[body] > back)
                )
                assert min(moment for moment in acknowledged.values() if moment > back) - back < RECOVERY_S
                assert min(moment for moment in received.values() if moment > back) - back < RECOVERY_S
                is_over.set()
                await asyncio.gather(*senders)
                await wait_for(lambda: len(acknowledged.keys() - received.keys()) <= IN_TRANSIT)
            # What was on its way to the client when the server died stays invisible for a minute: so that nobody waits
            # for it here, another group reads everything.
            await read_all(proxy, topic, acknowledged.keys())


async def read_all(proxy: str, topic: str, bodies: AbstractSet[bytes]) -> None:
    """Wait until a group of its own has received all these bodies."""
    found: set[bytes] = set()

    async def handle(message: ReceivedMessage) -> None:
        found.add(message.body)

    async with PushConsumer(proxy, group=fresh("all"), subscriptions={topic: "*"}, handler=handle):
        await wait_for(lambda: bodies <= found)
