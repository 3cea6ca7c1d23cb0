"""apogeemq-client-remoting against a real server: nothing lost, failed messages again, recovery from SIGKILL.

Time limits here are what the client promises, or far above what a busy machine needs.
"""

import asyncio
import collections
import itertools
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from apogeemq.client_api.errors import ClientError
from apogeemq.client_remoting import Message, Producer, PushConsumer, ReceivedMessage, Reject, RetryLater
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import ManagedProcess, Ready, fixed_ports, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all

ROOT = pathlib.Path(__file__).resolve().parents[2]
WAIT_S = 30.0
RECOVERY_S = 5.0
FIRST_MESSAGE_S = 1.0
MESSAGES = 10_000
IN_FLIGHT = 64

_numbers = itertools.count(1)

Runner = Callable[[Coroutine[None, None, None]], None]


def fresh(name: str) -> str:
    """A topic or group that no other test of this run has."""
    return f"CR_{name}_{next(_numbers)}"


@pytest.fixture
def namesrv(server: Ready) -> str:
    """The name server's address."""
    return server.listeners["namesrv.remoting"]


class Collected:
    """A handler that keeps what it gets, and tells when there are so many different bodies."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.bodies: collections.Counter[bytes] = collections.Counter()
        self.by_consumer: collections.Counter[str] = collections.Counter()
        self.complete = asyncio.Event()

    def handler(self, consumer: str) -> Callable[[ReceivedMessage], Coroutine[None, None, None]]:
        async def handle(message: ReceivedMessage) -> None:
            self.bodies[message.body] += 1
            self.by_consumer[consumer] += 1
            if len(self.bodies) >= self.count:
                self.complete.set()

        return handle

    async def wait(self) -> None:
        """Wait until all came; the error tells how many did."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self.complete.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.bodies)} of {self.count} messages came") from None


async def send_numbered(producer: Producer, topic: str, count: int) -> None:
    """Send the bodies "0", "1", …, IN_FLIGHT of them at a time."""
    numbers = iter(range(count))

    async def send_some() -> None:
        for number in numbers:
            await producer.send(Message(topic, b"%d" % number, tag="even" if number % 2 == 0 else "odd"))

    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))


async def test_two_consumers_share_ten_thousand_messages(namesrv: str) -> None:
    """Each message reaches one of the two members of the group, none is lost, and both get some."""
    topic, group = fresh("share"), fresh("share")
    collected = Collected(MESSAGES)
    async with Producer(namesrv) as producer:
        await producer.send(Message(topic, b"0"))
        common = {"group": group, "subscriptions": {topic: "*"}, "start": "earliest"}
        async with (
            PushConsumer(namesrv, handler=collected.handler("first"), **common),  # type: ignore[arg-type]
            PushConsumer(namesrv, handler=collected.handler("second"), **common),  # type: ignore[arg-type]
        ):
            await send_numbered(producer, topic, MESSAGES)
            await collected.wait()
    assert collected.bodies.keys() == {b"%d" % number for number in range(MESSAGES)}
    assert set(collected.by_consumer) == {"first", "second"}


async def test_a_clean_close_repeats_nothing(namesrv: str) -> None:
    """A member that closes while messages come leaves off where its successor begins."""
    topic, group, count = fresh("close"), fresh("close"), 2000
    collected = Collected(count)
    started = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        await collected.handler("first")(message)
        started.set()
        await asyncio.sleep(0.001)

    async with Producer(namesrv) as producer:
        await send_numbered(producer, topic, count)
    common = {"group": group, "subscriptions": {topic: "*"}, "start": "earliest"}
    async with PushConsumer(namesrv, handler=handle, **common):  # type: ignore[arg-type]
        await asyncio.wait_for(started.wait(), WAIT_S)
        await asyncio.sleep(0.02)
    assert 0 < len(collected.bodies) < count
    async with PushConsumer(namesrv, handler=collected.handler("second"), **common):  # type: ignore[arg-type]
        await collected.wait()
    assert collected.bodies == {b"%d" % number: 1 for number in range(count)}


async def test_the_first_message_comes_within_a_second(namesrv: str) -> None:
    """From the start of a consumer to its first message, with the message already there."""
    topic = fresh("first")
    async with Producer(namesrv) as producer:
        await producer.send(Message(topic, b"waiting"))
    begun = time.monotonic()
    async with PushConsumer(namesrv, group=fresh("first"), subscriptions={topic: "*"}, start="earliest") as consumer:
        async for message in consumer:
            assert message.body == b"waiting"
            break
    assert time.monotonic() - begun < FIRST_MESSAGE_S


async def test_a_failed_message_comes_again(namesrv: str) -> None:
    """A handler that raises gets its message once more with a higher attempt, under the topic that it subscribed to."""
    topic = fresh("again")
    seen: list[tuple[bytes, str, int]] = []
    again = asyncio.Event()

    def handle(message: ReceivedMessage) -> None:  # a plain function: it runs in a thread
        seen.append((message.body, message.topic, message.delivery_attempt))
        if message.delivery_attempt == 1:
            raise RetryLater(1)
        loop.call_soon_threadsafe(again.set)

    loop = asyncio.get_running_loop()
    async with (
        Producer(namesrv) as producer,
        PushConsumer(namesrv, group=fresh("again"), subscriptions={topic: "a || b"}, handler=handle, start="earliest"),
    ):
        await producer.send(Message(topic, b"other", tag="c"))
        await producer.send(Message(topic, b"mine", tag="b", properties={"colour": "red"}))
        await asyncio.wait_for(again.wait(), WAIT_S)
    assert seen == [(b"mine", topic, 1), (b"mine", topic, 2)]


async def test_a_rejected_message_goes_to_the_dlq(namesrv: str, server: Ready) -> None:
    """A handler that rejects gets its message never again; it lies in the group's DLQ."""
    topic, group = fresh("dlq"), fresh("dlq")
    handled = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        if message.body == b"poison":
            raise Reject("it cannot be read")
        handled.set()

    async with (
        Producer(namesrv) as producer,
        PushConsumer(namesrv, group=group, subscriptions={topic: "*"}, handler=handle, concurrency=1, start="earliest"),
    ):
        await producer.send_batch([Message(topic, b"poison"), Message(topic, b"fine")])
        await asyncio.wait_for(handled.wait(), WAIT_S)
    with WireClient(server.listeners["broker.remoting"]) as client:
        assert [record.body for record in pull_all(client, f"%DLQ%{group}", group)] == [b"poison"]


async def test_latest_means_what_is_sent_from_now_on(namesrv: str, server: Ready) -> None:
    """A new group does not get what was sent before its first member started, on a young topic neither."""
    topic = fresh("latest")
    async with Producer(namesrv) as producer:
        await producer.send_batch([Message(topic, b"before"), Message(topic, b"before")])
        group = fresh("latest")
        async with PushConsumer(namesrv, group=group, subscriptions={topic: "*"}) as consumer:
            await wait_for(lambda: has_begun(server.listeners["broker.remoting"], topic, group))
            await producer.send(Message(topic, b"after"))
            async for message in consumer:
                assert message.body == b"after"
                break


def has_begun(broker: str, topic: str, group: str) -> bool:
    """Whether the group has a committed offset on each of the topic's four queues."""
    with WireClient(broker) as client:
        fields = {"consumerGroup": group, "topic": topic, "setZeroIfNotFound": "false"}
        replies = [client.request(RequestCode.QUERY_CONSUMER_OFFSET, {**fields, "queueId": str(n)}) for n in range(4)]
    return all(reply.code == ResponseCode.SUCCESS for reply in replies)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_both_event_loops(run: Runner, namesrv: str) -> None:
    """Producer and consumer work under asyncio's own event loop and under uvloop."""

    async def send_and_receive() -> None:
        topic = fresh("loop")
        async with (
            Producer(namesrv) as producer,
            PushConsumer(namesrv, group=fresh("loop"), subscriptions={topic: "*"}, start="earliest") as consumer,
        ):
            sent = await producer.send(Message(topic, b"hello", keys=("k",)))
            async for message in consumer:
                assert (message.message_id, message.keys) == (sent.message_id, ("k",))
                break

    run(send_and_receive())


# -- what the documents show


def run_program(*argv: str) -> str:
    """Standard output of a Python program in this environment."""
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def readme_program(name: str, namesrv: str) -> str:
    """One of the README's programs, with this test's name server, and no longer waits than it needs."""
    readme = (ROOT / "packages" / "client-remoting" / "README.md").read_text()
    (program,) = re.findall(rf"```python {name}\n(.*?)```", readme, re.DOTALL)
    return str(program).replace("127.0.0.1:9876", namesrv).replace("asyncio.sleep(5)", "asyncio.sleep(1)")


def test_the_readmes_programs(namesrv: str) -> None:
    """The producer's message is handled by the consumer, by the one that reads in order, and polled."""
    assert re.fullmatch(r"sent [0-9A-F]{32,56}\n", run_program("-c", readme_program("producer", namesrv)))
    assert run_program("-c", readme_program("push", namesrv)) == "handled order 7\n"
    assert re.fullmatch(r"handled order 7 of queue \d\n", run_program("-c", readme_program("orderly", namesrv)))
    assert run_program("-c", readme_program("pull", namesrv)) == "polled order 7\n"
    assert re.fullmatch(r"committed [0-9A-F]{32,56}\n", run_program("-c", readme_program("transaction", namesrv)))


def test_the_quickstart_prints_what_its_readme_says(namesrv: str) -> None:
    """With another message id."""
    printed = run_program(str(ROOT / "examples" / "client-remoting-quickstart" / "quickstart.py"), namesrv)
    assert re.fullmatch(r"sent: FirstTopic [0-9A-F]{32,56}\nreceived: hello, queue \(delivery 1\)\n", printed)


# -- SIGKILL


async def test_kill_9_under_load(mortal: ManagedProcess, tmp_path: pathlib.Path) -> None:
    """Broker and name server die amid sends and come back: no acknowledged message is lost, and both clients go on by
    themselves within seconds of the server being back.
    """
    ready = await asyncio.to_thread(mortal.wait_ready)
    namesrv, topic, group = ready.listeners["namesrv.remoting"], fresh("kill"), fresh("kill")
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
                await asyncio.sleep(0.002)  # so that the two clients, in one process, have time for both

    async with (
        Producer(namesrv) as producer,
        PushConsumer(namesrv, group=group, subscriptions={topic: "*"}, handler=handle, start="earliest"),
    ):
        senders = [asyncio.create_task(send_on(producer)) for _ in range(8)]
        await wait_for(lambda: len(acknowledged) >= 2000 and len(received) >= 1000)
        await asyncio.to_thread(mortal.kill)
        with start_all_in_one(
            tmp_path / "data", log_directory=tmp_path / "second", ports=None, settings=fixed_ports(ready)
        ) as process:
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
            await wait_for(lambda: acknowledged.keys() <= received.keys())
        # The consumer closes with its broker gone: that must not take longer than its deadlines.
    assert acknowledged.keys() <= received.keys()


async def wait_for(is_done: Callable[[], bool]) -> None:
    """Ask again and again; fails after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not is_done():  # noqa: ASYNC110 — what is waited for happens in many places
            await asyncio.sleep(0.02)


async def test_a_request_is_answered(namesrv: str) -> None:
    """Twenty at a time, by a consumer of this client; a reply to nobody fails."""
    topic, group = fresh("request"), fresh("request")
    async with Producer(namesrv) as asking, Producer(namesrv) as answering:
        await asking.send(Message(topic, b"no request"))
        refused: list[str] = []

        async def answer(message: ReceivedMessage) -> None:
            try:
                await answering.reply(message, b"re: " + message.body, timeout_s=WAIT_S)
            except ClientError as error:
                refused.append(str(error))

        async with PushConsumer(
            namesrv, group=group, subscriptions={topic: "*"}, handler=answer, start="earliest", concurrency=32
        ):
            questions = [Message(topic, b"%d" % number) for number in range(20)]
            replies = await asyncio.gather(*(asking.request(question, timeout_s=WAIT_S) for question in questions))
        assert [reply.body for reply in replies] == [b"re: %d" % number for number in range(20)]
        assert len(refused) == 1
        assert "is no request" in refused[0]


async def test_a_message_group_is_handled_in_its_order(namesrv: str) -> None:
    """Sent one after the other within each group, handled so by an ordered consumer, whatever fails at first."""
    topic, group = fresh("ordered"), fresh("ordered")
    handled: dict[str, list[int]] = collections.defaultdict(list)
    failed: set[bytes] = set()

    async def handle(message: ReceivedMessage) -> None:
        number = int(message.body.split()[1])
        if number % 5 == 0 and message.body not in failed:
            failed.add(message.body)
            raise RetryLater(0.01)
        assert message.message_group is not None
        handled[message.message_group].append(number)

    async def send_group(producer: Producer, name: str) -> set[int]:
        bodies = [f"{name} {number}".encode() for number in range(10)]
        receipts = [await producer.send(Message(topic, body, message_group=name)) for body in bodies]
        return {receipt.queue_id for receipt in receipts}

    async with Producer(namesrv) as producer:
        await producer.send(Message(topic, b"first 1", message_group="warm"))
        names = ["red", "green", "blue"]
        async with PushConsumer(
            namesrv, group=group, subscriptions={topic: "*"}, handler=handle, start="earliest", orderly=True
        ):
            queues = await asyncio.gather(*(send_group(producer, name) for name in names))
            async with asyncio.timeout(WAIT_S):
                while any(handled[name] != list(range(10)) for name in names):  # noqa: ASYNC110 — handlers set no event
                    await asyncio.sleep(0.02)
    assert [len(each) for each in queues] == [1, 1, 1]
    assert handled["warm"] == [1]
