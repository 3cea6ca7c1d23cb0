"""Runs the official Python gRPC client on command; prints what happens as JSON objects, one a line; judges nothing.

    driver.py produce --endpoints 127.0.0.1:8081 --topic T --count 100 --prefix k
    driver.py simple  --endpoints 127.0.0.1:8081 --topic T --group G
    driver.py push    --endpoints 127.0.0.1:8081 --topic T --group G
    driver.py transact --endpoints 127.0.0.1:8081 --topic T --count 9 --say cru --answer cr
    driver.py steady  --endpoints 127.0.0.1:8081 --topic T --prefix k --producers 3 --consumers 3

Each ends in good order at the line "stop" on stdin, or at stdin's end, so that none outlives its test; a producer also
when it has sent everything. Exit codes: 0 done, 2 the deadline passed before every message was acknowledged.
tests/interop/grpc_events.py describes the lines, tests/interop/steady.py those of `steady`.

It needs HOME to point to a directory of the test's: the client logs to ~/logs/rocketmq_python.
"""

import argparse
import collections
import hashlib
import itertools
import json
import os
import sys
import threading
import time

import rocketmq  # type: ignore[import-untyped]

EXIT_DONE, EXIT_DEADLINE = 0, 2
RETRY_PAUSE_S = 0.05
REQUEST_TIMEOUT_S = 10
BATCH_MAX = 32

print_lock = threading.Lock()


def report(**fields: object) -> None:
    """Whole lines only: many client threads print at once."""
    with print_lock:
        print(json.dumps(fields), flush=True)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def body_of(key: str, size_bytes: int) -> bytes:
    """The key, then a space and every byte value in turn where there is room: the judge knows the same rule."""
    head = key.encode()
    filler = b" " + bytes(range(256)) * (size_bytes // 256 + 1)
    return head + filler[: max(0, size_bytes - len(head))]


def configuration(options: argparse.Namespace) -> rocketmq.ClientConfiguration:
    return rocketmq.ClientConfiguration(
        options.endpoints, rocketmq.Credentials(), request_timeout=options.request_timeout_s
    )


def subscription(options: argparse.Namespace) -> dict[str, rocketmq.FilterExpression]:
    return {options.topic: rocketmq.FilterExpression(options.tags)}


# -- produce


class Produce:
    """Sends `--count` messages from `--threads` threads, each again and again until it is acknowledged."""

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self.options = options
        self.stopped = stopped
        self.deadline = time.monotonic() + options.deadline_s
        self.numbers = iter(range(options.count))
        self.numbers_lock = threading.Lock()
        self.abandoned = 0
        self.producer = rocketmq.Producer(configuration(options), [options.topic], tls_enable=options.tls)

    def run(self) -> int:
        self.producer.startup()
        report(started="produce", at_ms=now_ms())
        threads = [threading.Thread(target=self.send_some) for _ in range(self.options.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.producer.shutdown()
        return EXIT_DEADLINE if self.abandoned else EXIT_DONE

    def send_some(self) -> None:
        while not self.stopped.is_set() and (number := self.next_number()) is not None:
            key = f"{self.options.prefix}-{number}"
            handle = self.send(key)
            if self.options.recall_from is not None and number >= self.options.recall_from:
                report(recalled=key, msg_id=self.producer.recall_message(self.options.topic, handle))
            self.stopped.wait(self.options.interval_ms / 1000)

    def next_number(self) -> int | None:
        with self.numbers_lock:
            return next(self.numbers, None)

    def send(self, key: str) -> str | None:
        """Gives what takes the message back, where the server says something."""
        attempt = 1
        while True:
            try:
                receipt = self.producer.send(self.message(key))
            except Exception as error:  # noqa: BLE001 — the client raises bare Exceptions; all are told
                report(failed=key, attempt=attempt, at_ms=now_ms(), error=describe(error))
            else:
                report(sent=key, msg_id=receipt.message_id, attempts=attempt, at_ms=now_ms())
                handle: str | None = receipt.recall_handle
                return handle
            if time.monotonic() > self.deadline:
                self.abandoned += 1
                report(abandoned=key, attempts=attempt)
                return None
            attempt += 1
            time.sleep(RETRY_PAUSE_S)

    def message(self, key: str) -> rocketmq.Message:
        message = rocketmq.Message()
        message.topic = self.options.topic
        message.body = body_of(key, self.options.size_bytes)
        message.keys = key
        if self.options.tag:
            message.tag = self.options.tag
        if self.options.delay_ms is not None:
            message.delivery_timestamp = (now_ms() + self.options.delay_ms) // 1000
        if self.options.message_groups:
            message.message_group = f"group-{int(key.rsplit('-', 1)[1]) % self.options.message_groups}"
        if self.options.property:
            message.add_property(*self.options.property.split("=", 1))
        return message


# -- transact


class Transact(rocketmq.TransactionChecker):  # type: ignore[misc]  # a class of an untyped package
    """Sends `--count` messages, each in a transaction of its own, and then answers questions until it is told to stop.

    What becomes of message n at once, and what is said when the server asks, is the letter at place n of `--say` and of
    `--answer`, from the start again at their ends: c commit, r roll back, u unknown, which at once is nothing.
    """

    ANSWERS = {  # noqa: RUF012 — a table
        "c": rocketmq.TransactionResolution.COMMIT,
        "r": rocketmq.TransactionResolution.ROLLBACK,
        "u": rocketmq.TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED,
    }

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self.options = options
        self.stopped = stopped
        self.producer = rocketmq.Producer(configuration(options), [options.topic], checker=self, tls_enable=options.tls)

    def run(self) -> int:
        self.producer.startup()
        report(started="transact", at_ms=now_ms())
        for number in range(self.options.count):
            self.transact(f"{self.options.prefix}-{number}")
        self.stopped.wait()
        self.producer.shutdown()
        return EXIT_DONE

    def transact(self, key: str) -> None:
        message = rocketmq.Message()
        message.topic, message.body, message.keys = self.options.topic, key.encode(), key
        transaction = self.producer.begin_transaction()
        receipt = self.producer.send(message, transaction)
        letter = letter_of(self.options.say, key)
        if letter == "c":
            transaction.commit()
        elif letter == "r":
            transaction.rollback()
        report(half=key, msg_id=receipt.message_id, said=letter)

    def check(self, message: rocketmq.Message) -> rocketmq.TransactionResolution:
        key = message.body.decode(errors="replace")
        letter = letter_of(self.options.answer, key)
        report(
            asked=key,
            msg_id=message.message_id,
            topic=message.topic,
            keys=sorted(message.keys),
            said=letter,
            at_ms=now_ms(),
        )
        return self.ANSWERS[letter]


def letter_of(letters: str, key: str) -> str:
    return letters[int(key.rpartition("-")[2]) % len(letters)]


# -- consume


def report_received(message: rocketmq.Message) -> str:
    """Prints a delivery; gives its key, which is the body's first word."""
    key: str = message.body.split(b" ", 1)[0].decode(errors="replace")
    report(
        received=key,
        msg_id=message.message_id,
        topic=message.topic,
        keys=sorted(message.keys),
        tag=message.tag,
        properties=dict(message.properties),
        size_bytes=len(message.body),
        sha256=hashlib.sha256(message.body).hexdigest(),
        is_corrupted=message.corrupted,
        attempt=message.delivery_attempt,
        at_ms=now_ms(),
    )
    return key


class Simple:
    """Receives in `--threads` threads and acknowledges message by message.

    With `--neglect N` it leaves the first delivery of every N-th message alone, as a consumer that died would.
    """

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self.options = options
        self.stopped = stopped
        self.consumer = rocketmq.SimpleConsumer(
            configuration(options),
            options.group,
            subscription(options),
            await_duration=options.await_s,
            tls_enable=options.tls,
        )

    def run(self) -> int:
        self.consumer.startup()
        report(started="simple", at_ms=now_ms())
        threads = [threading.Thread(target=self.receive_some, daemon=True) for _ in range(self.options.threads)]
        for thread in threads:
            thread.start()
        self.stopped.wait()
        self.consumer.shutdown()
        return EXIT_DONE

    def receive_some(self) -> None:
        while not self.stopped.is_set():
            try:
                messages = self.consumer.receive(BATCH_MAX, self.options.invisible_s)
            except Exception as error:  # noqa: BLE001 — the client raises bare Exceptions; all are told
                if not self.stopped.is_set():  # the end of a client cancels its receives
                    report(receive_failed=describe(error), at_ms=now_ms())
                    time.sleep(RETRY_PAUSE_S)
                continue
            for message in messages:
                key = report_received(message)
                if not self.is_neglected(key, message.delivery_attempt):
                    self.ack(key, message)

    def is_neglected(self, key: str, attempt: int) -> bool:
        every: int = self.options.neglect
        return every > 0 and attempt == 1 and int(key.rpartition("-")[2]) % every == 0

    def ack(self, key: str, message: rocketmq.Message) -> None:
        try:
            self.consumer.ack(message)
        except Exception as error:  # noqa: BLE001 — the client raises bare Exceptions; all are told
            report(settle_failed=key, msg_id=message.message_id, at_ms=now_ms(), error=describe(error))
        else:
            report(settled=key, msg_id=message.message_id, at_ms=now_ms())


class Push(rocketmq.MessageListener):  # type: ignore[misc]  # a class of an untyped package
    """Takes what the client hands it; with `--fail-first N` it refuses the first N deliveries of each message.

    Of a group that consumes in order the client tries a message again itself, and counts that nowhere: so it is counted
    here too.
    """

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self.options = options
        self.stopped = stopped
        self.refusals: collections.Counter[str] = collections.Counter()
        self.consumer = rocketmq.PushConsumer(
            configuration(options),
            options.group,
            self,
            subscription(options),
            consumption_thread_count=options.threads,
            tls_enable=options.tls,
        )

    def run(self) -> int:
        self.consumer.startup()
        report(started="push", at_ms=now_ms())
        self.stopped.wait()
        self.consumer.shutdown()
        return EXIT_DONE

    def consume(self, message: rocketmq.Message) -> rocketmq.ConsumeResult:
        key = report_received(message)
        if max(message.delivery_attempt, self.refusals[key] + 1) <= self.options.fail_first:
            self.refusals[key] += 1
            return rocketmq.ConsumeResult.FAILURE
        # The client acknowledges after this and tells nobody; it tries for as long as it runs.
        report(settled=key, msg_id=message.message_id, at_ms=now_ms())
        return rocketmq.ConsumeResult.SUCCESS


# -- steady


class Steady:
    """Several applications with a client each, which keeps its defaults, until it is told to stop.

    `--producers` send to `--topic`, one message after the other, and go on to the next whatever became of the last;
    `--consumers` push-consume it, each as a group of its own.
    """

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self.options = options
        self.stopped = stopped

    def run(self) -> int:
        threads = [self.produce(f"{self.options.prefix}-p{number}") for number in range(self.options.producers)]
        for number in range(self.options.consumers):
            self.consume(f"{self.options.prefix}-c{number}")
        report(started="steady", at_ms=now_ms())
        self.stopped.wait()
        for thread in threads:
            thread.join()
        return EXIT_DONE

    def client_configuration(self) -> rocketmq.ClientConfiguration:
        return rocketmq.ClientConfiguration(self.options.endpoints, rocketmq.Credentials())

    def produce(self, name: str) -> threading.Thread:
        producer = rocketmq.Producer(self.client_configuration(), [self.options.topic])
        producer.startup()
        thread = threading.Thread(target=self.send_on, args=[producer, name])
        thread.start()
        return thread

    def send_on(self, producer: rocketmq.Producer, name: str) -> None:
        for number in itertools.count():
            if self.stopped.wait(self.options.interval_ms / 1000):
                return
            self.send(producer, name, f"{name}-{number}")

    def send(self, producer: rocketmq.Producer, name: str, key: str) -> None:
        message = rocketmq.Message()
        message.topic, message.body, message.keys = self.options.topic, key.encode(), key
        begun_ms = now_ms()
        try:
            producer.send(message)
        except Exception as error:  # noqa: BLE001 — the client raises bare Exceptions; all are told
            report(failed=key, client=name, at_ms=now_ms(), took_ms=now_ms() - begun_ms, error=describe(error))
        else:
            report(acked=key, client=name, at_ms=now_ms(), took_ms=now_ms() - begun_ms)

    def consume(self, name: str) -> None:
        listener = SteadyListener(name)
        subscription = {self.options.topic: rocketmq.FilterExpression()}
        rocketmq.PushConsumer(self.client_configuration(), f"group-{name}", listener, subscription).startup()


class SteadyListener(rocketmq.MessageListener):  # type: ignore[misc]  # a class of an untyped package
    """Takes every message."""

    def __init__(self, name: str) -> None:
        self.name = name

    def consume(self, message: rocketmq.Message) -> rocketmq.ConsumeResult:
        report(got=message.body.decode(), client=self.name, at_ms=now_ms())
        return rocketmq.ConsumeResult.SUCCESS


# -- the command line


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def listen(stopped: threading.Event) -> None:
    """Waits for the wish to end."""
    for line in sys.stdin:
        if line == "stop\n":
            break
    stopped.set()


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--endpoints", required=True)
    place.add_argument("--topic", required=True)
    common = argparse.ArgumentParser(add_help=False, parents=[place])
    common.add_argument("--tls", action="store_true")
    common.add_argument("--threads", type=int, default=2)
    common.add_argument("--request-timeout-s", type=int, default=REQUEST_TIMEOUT_S)

    produce = commands.add_parser("produce", parents=[common])
    produce.add_argument("--count", type=int, default=1)
    produce.add_argument("--prefix", default="message")
    produce.add_argument("--size-bytes", type=int, default=0)
    produce.add_argument("--tag")
    produce.add_argument("--property", metavar="NAME=VALUE")
    produce.add_argument("--delay-ms", type=int, help="to be delivered so long after it is sent, to the second")
    produce.add_argument("--recall-from", type=int, metavar="N", help="take back the messages from number N on")
    produce.add_argument("--message-groups", type=int, default=0, help="message N goes to group N modulo this")
    produce.add_argument("--interval-ms", type=int, default=0)
    produce.add_argument("--deadline-s", type=float, default=60.0)

    transact = commands.add_parser("transact", parents=[common])
    transact.add_argument("--count", type=int, default=0)
    transact.add_argument("--prefix", default="transaction")
    transact.add_argument("--say", default="c")
    transact.add_argument("--answer", default="u")

    steady = commands.add_parser("steady", parents=[place])
    steady.add_argument("--prefix", required=True)
    steady.add_argument("--producers", type=int, default=1)
    steady.add_argument("--consumers", type=int, default=0)
    steady.add_argument("--interval-ms", type=int, default=50)

    consumer = argparse.ArgumentParser(add_help=False)
    consumer.add_argument("--group", required=True)
    consumer.add_argument("--tags", default="*")
    simple = commands.add_parser("simple", parents=[common, consumer])
    simple.add_argument("--invisible-s", type=int, default=60)
    simple.add_argument("--await-s", type=int, default=10)
    simple.add_argument("--neglect", type=int, default=0)
    push = commands.add_parser("push", parents=[common, consumer])
    push.add_argument("--fail-first", type=int, default=0)
    return parser.parse_args(words)


COMMANDS: dict[str, type[Produce | Transact | Simple | Push | Steady]] = {
    "produce": Produce,
    "transact": Transact,
    "simple": Simple,
    "push": Push,
    "steady": Steady,
}


def main() -> int:
    options = parse(sys.argv[1:])
    stopped = threading.Event()
    threading.Thread(target=listen, args=[stopped], daemon=True).start()
    return COMMANDS[options.command](options, stopped).run()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the client leaves threads behind that would keep the process
