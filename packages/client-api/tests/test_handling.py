"""What becomes of a message after its handler ran."""

import asyncio
import threading

import pytest
from apogeemq.client_api.errors import PayloadInvalid
from apogeemq.client_api.handling import (
    Again,
    Done,
    GiveUp,
    Reject,
    Retry,
    RetryLater,
    as_handler,
    exponential,
    rocketmq_levels,
    settlement_of,
)
from apogeemq.client_api.message import ReceivedMessage

RETRY = Retry(max_attempts=3, backoff=exponential(first_s=2, factor=3, max_s=10), on=(OSError,))


def test_a_handler_that_returns_is_done() -> None:
    """At any attempt."""
    assert settlement_of(None, 1, RETRY) == Done()
    assert settlement_of(None, 99, RETRY) == Done()


def test_a_failure_comes_again_by_the_policy() -> None:
    """After 2 s, then 6 s; the third failure is the last."""
    assert settlement_of(OSError("x"), 1, RETRY) == Again(2)
    assert settlement_of(OSError("x"), 2, RETRY) == Again(6)
    assert settlement_of(OSError("x"), 3, RETRY) == GiveUp("delivered 3 times; the last failure was OSError")


def test_what_is_not_worth_a_retry_is_given_up_at_once() -> None:
    """By the policy's types, by the handler's word, and for a body that cannot be read."""
    assert isinstance(settlement_of(KeyError("x"), 1, RETRY), GiveUp)
    assert settlement_of(Reject("poison"), 1, Retry()) == GiveUp("poison")
    assert settlement_of(PayloadInvalid("no JSON"), 1, Retry()) == GiveUp("no JSON")


def test_a_handler_can_name_the_time() -> None:
    """But not go beyond the attempts."""
    assert settlement_of(RetryLater(30), 1, RETRY) == Again(30)
    assert isinstance(settlement_of(RetryLater(30), 3, RETRY), GiveUp)


def test_the_default_is_rocketmqs() -> None:
    """16 retries at the delay levels from 3 on: 10 s, 30 s, 1 min, ..., 2 h."""
    assert [rocketmq_levels(attempt) for attempt in (1, 2, 3, 16, 40)] == [10, 30, 60, 7200, 7200]
    assert settlement_of(ValueError(), 16, Retry()) == Again(7200)
    assert isinstance(settlement_of(ValueError(), 17, Retry()), GiveUp)


def test_a_backoff_has_a_bound() -> None:
    """Also after so many failures that a float would overflow."""
    backoff = exponential(first_s=1, factor=10, max_s=60)
    assert [backoff(1), backoff(2), backoff(3), backoff(100_000)] == [1, 10, 60, 60]


@pytest.mark.parametrize("arguments", [{"first_s": -1}, {"factor": 0.5}, {"first_s": 5, "max_s": 1}])
def test_an_impossible_backoff_is_refused(arguments: dict[str, float]) -> None:
    """Where it is written."""
    with pytest.raises(ValueError, match="back-off"):
        exponential(**arguments)


def test_impossible_words_are_refused() -> None:
    """No attempt at all, a time before now."""
    with pytest.raises(ValueError, match="max_attempts"):
        Retry(max_attempts=0)
    with pytest.raises(ValueError, match="after_s"):
        RetryLater(-1)


async def test_a_plain_function_runs_in_a_thread() -> None:
    """So that it may block; what it raises comes out."""
    threads = []

    def handle(message: ReceivedMessage) -> None:
        threads.append(threading.current_thread())
        raise OSError("from the thread")

    with pytest.raises(OSError, match="from the thread"):
        await as_handler(handle)(message())
    assert threads != [threading.current_thread()]


async def test_whatever_is_awaitable_runs_on_the_loop() -> None:
    """A coroutine function as it is, an object with an async __call__, a lambda that gives a coroutine."""
    ran = []

    async def handle(message: ReceivedMessage) -> None:
        ran.append(asyncio.current_task())

    class Handler:
        async def __call__(self, message: ReceivedMessage) -> None:
            await handle(message)

    assert as_handler(handle) is handle
    for handler in (handle, Handler(), lambda received: handle(received)):  # noqa: PLW0108 — a lambda is what is tried
        await as_handler(handler)(message())
    assert ran == [asyncio.current_task()] * 3


def message() -> ReceivedMessage:
    return ReceivedMessage(
        message_id="ID",
        topic="t",
        body=b"x",
        tag=None,
        keys=(),
        properties={},
        message_group=None,
        born_timestamp_ms=0,
        born_host="127.0.0.1:1",
        store_timestamp_ms=0,
        broker_name="b",
        queue_id=0,
        queue_offset=0,
        delivery_attempt=1,
        group="g",
    )
