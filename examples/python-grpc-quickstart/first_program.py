"""Sends one message and receives it. The one argument is the proxy's address; default localhost:8081."""

# ruff: noqa: T201 — a first program prints what it does

import sys

from rocketmq import (  # type: ignore[import-untyped]
    ClientConfiguration,
    Credentials,
    FilterExpression,
    Message,
    Producer,
    SimpleConsumer,
)

TOPIC = "FirstTopic"
INVISIBLE_S = 30


def send(configuration: ClientConfiguration, text: str) -> None:
    """One message, and the id that it got."""
    producer = Producer(configuration, [TOPIC])
    producer.startup()
    message = Message()
    message.topic = TOPIC
    message.body = text.encode()
    print("sent:", TOPIC, producer.send(message).message_id)
    producer.shutdown()


def receive(configuration: ClientConfiguration) -> bool:
    """Asks once, and waits for up to 20 s; whether anything came."""
    consumer = SimpleConsumer(configuration, "first-python-consumers", {TOPIC: FilterExpression()})
    consumer.startup()
    messages = consumer.receive(16, INVISIBLE_S)
    for message in messages:
        print("received:", message.body.decode())
        consumer.ack(message)
    consumer.shutdown()
    return bool(messages)


def main() -> int:
    """Exit code 1 when nothing was received."""
    configuration = ClientConfiguration(sys.argv[1] if len(sys.argv) > 1 else "localhost:8081", Credentials())
    send(configuration, "hello, queue")
    return 0 if receive(configuration) else 1


if __name__ == "__main__":
    sys.exit(main())
