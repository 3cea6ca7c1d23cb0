"""Official Java Remoting clients with messages that wait: by level, by the millisecond, taken back, over a crash.

Every scenario must also hold against Apache's servers (`--deployment apache`), but for those of `only_ours`. There
timers tick once a second, and a message may come up to that much early.
"""

import contextlib
import pathlib
import time

import pytest
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.message_id import RecallHandle, decode_recall_handle, encode_recall_handle
from apogeemq.remoting_codec.record import Record, decode_records

from tests.e2e.wire_client import WireClient, send_fields
from tests.interop.conftest import NewClient
from tests.interop.deployments import DEPLOYMENTS, Deployment
from tests.interop.driver_run import DriverRun
from tests.interop.events import Delayed, Delivery, Recalled, Undelayed
from tests.interop.group_deliveries import keys_of, numbered, wait_keys
from tests.interop.java import JavaClient
from tests.interop.operator_client import Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

LEVELS_S = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
SETTINGS = {
    "messageDelayLevel": " ".join(f"{level}s" for level in LEVELS_S),
    "timerMaxDelaySec": "600",
    "timerWheelEnable": "true",
    "recallMessageEnable": "true",
}
TOO_FAR_MS = 601_000
LATE_MS_MAX = 5_000
"""On a machine that does much else; how late they are is measured elsewhere (docs/performance.md)."""
TICK_MS = {"apache": 1_000}


def check_times(consumer: DriverRun, delayed: list[Delayed], delays_ms: dict[str, int], early_ms_max: int) -> None:
    """Each came once, in time."""
    assert {one.status for one in delayed} == {"SEND_OK"}
    sent_ms = {one.key: one.sent_ms for one in delayed}
    came = {one.key: one for one in consumer.events(Delivery) if one.key in delays_ms}
    assert sorted(key for key in keys_of(consumer) if key in delays_ms) == sorted(delays_ms)
    for key, delay_ms in delays_ms.items():
        late_ms = came[key].received_ms - sent_ms[key] - max(delay_ms, 0)
        assert -early_ms_max <= late_ms <= LATE_MS_MAX, f"{key}: {late_ms} ms late"


def delayed_of(events: list[object]) -> list[Delayed]:
    return [event for event in events if isinstance(event, Delayed)]


def test_all_levels_that_are_configured(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """1 to 18, each after its own time; a level beyond the last is the last; level 0 waits for nothing."""
    operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    levels = [*range(1, 19), 99, 0]
    delayed = delayed_of(client.delay(topic, "level", levels))
    delays_ms = {
        f"level-{number}": 1000 * (LEVELS_S[min(level, 18) - 1] if level else 0) for number, level in enumerate(levels)
    }
    wait_keys(delays_ms, consumer)
    check_times(consumer, delayed, delays_ms, 0)


@pytest.mark.usefixtures("only_newest")
def test_any_time_up_to_the_horizon_and_taken_back(
    client: JavaClient,
    running: contextlib.ExitStack,
    operator: Operator,
    topic: str,
    group: str,
    deployment_kind: str,
) -> None:
    """By ms, by seconds, at a time: in time, the past at once, beyond the horizon 13; what is recalled never comes."""
    operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    asked_ms = {
        "at": [-5, 1_500, 2_777, 7_000, TOO_FAR_MS],
        "ms": [700, 1_900, 7_000, TOO_FAR_MS],
        "sec": [2_000, 8_000, 7_000, TOO_FAR_MS],
    }
    recalled = {"at": 3, "ms": 2, "sec": 2}
    delayed: list[Delayed] = []
    delays_ms: dict[str, int] = {}
    for by, values in asked_ms.items():
        told = client.delay(
            topic, by, [value // 1000 if by == "sec" else value for value in values], recall=recalled[by]
        )
        delays_ms |= {f"{by}-{number}": ms for number, ms in enumerate(values[:-1]) if number != recalled[by]}
        delayed += delayed_of(told)
        (refused,) = [event for event in told if isinstance(event, Undelayed)]
        assert (refused.key, refused.code) == (f"{by}-{len(values) - 1}", 13)
        assert refused.error.startswith("timer message illegal")
        (taken,) = [event for event in told if isinstance(event, Recalled)]
        (sent,) = [event for event in delayed_of(told) if event.key == f"{by}-{recalled[by]}"]
        assert (taken.handle, taken.msg_id) == (sent.handle, sent.msg_id)
    wait_keys(delays_ms, consumer)  # sec-1 last, after all that was recalled would have come
    check_times(consumer, delayed, delays_ms, TICK_MS.get(deployment_kind, 0))
    consumer.stop_consuming()
    assert keys_of(consumer) == sorted([*numbered("old"), *delays_ms])


@pytest.mark.usefixtures("only_newest", "only_ours")
def test_what_waits_survives_a_killed_broker(
    deployment_kind: str,
    new_client: NewClient,
    running: contextlib.ExitStack,
    topic: str,
    group: str,
    tmp_path: pathlib.Path,
) -> None:
    """SIGKILL with levels, timers and recalls pending: nothing is lost or early, nothing recalled comes."""
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", SETTINGS))
    client = new_client(cluster)
    with Operator(cluster.broker) as operator:
        operator.send(topic, numbered("old"))
    consumer = running.enter_context(client.consume(topic, group))
    wait_keys(numbered("old"), consumer)
    times_ms = [4_000 + 311 * number for number in range(20)]
    by_time = client.delay(topic, "ms", times_ms, recall="3,7,19")
    by_level = client.delay(topic, "level", [4, 10, 18])
    cluster.kill_broker()
    cluster.start_broker()
    delays_ms = {f"ms-{number}": ms for number, ms in enumerate(times_ms) if number not in (3, 7, 19)}
    delays_ms |= {"level-0": 2_000, "level-1": 4_000, "level-2": 6_000}
    wait_keys(delays_ms, consumer)
    time.sleep(max(0.0, delayed_of(by_time)[-1].sent_ms / 1000 + 11 - time.time()))
    consumer.stop_consuming()
    came = {delivery.key: delivery.received_ms for delivery in consumer.events(Delivery)}
    assert set(came) == {*numbered("old"), *delays_ms}
    for one in delayed_of([*by_time, *by_level]):
        if one.key in delays_ms:
            assert came[one.key] >= one.sent_ms + delays_ms[one.key], f"{one.key} is early"


# -- as Apache's broker has it -----------------------------------------------------------------------------------------

KEY = "0A000001000018B4AAC27CBB0A4F0000"
COPIED = {"UNIQ_KEY", "KEYS", "TAGS", "MSG_REGION", "TRACE_ON", "CLUSTER", "REAL_TOPIC", "REAL_QID"}
BY_TIMER = COPIED | {"TIMER_OUT_MS", "TIMER_ENQUEUE_MS", "TIMER_DEQUEUE_MS"}
OUR_OWN = {"APOGEEMQ_TIMER_OFFSET"}
FORMS = {
    "DELAY": ("2", COPIED | {"DELAY"}),
    "TIMER_DELAY_MS": ("1500", BY_TIMER | {"TIMER_DELAY_MS"}),
    "TIMER_DELAY_SEC": ("1", BY_TIMER | {"TIMER_DELAY_SEC"}),
    "TIMER_DELIVER_MS": ("", BY_TIMER | {"TIMER_DELIVER_MS"}),
}
"""The property that asks for a delay, its value (empty: in 1.5 s), and the properties of the delivered copy."""


def pulled(wire: WireClient, topic: str, queue_id: int) -> list[Record]:
    """All messages of a queue."""
    fields = {"consumerGroup": "interop_forms", "topic": topic, "queueId": str(queue_id), "queueOffset": "0"}
    fields |= {"maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0"}
    fields |= {"subscription": "*", "subVersion": "0", "expressionType": "TAG"}
    reply = wire.request(RequestCode.PULL_MESSAGE, fields)
    return list(decode_records(reply.body)) if reply.code == 0 else []


@pytest.mark.usefixtures("only_newest")
def test_a_delivered_copy_has_apaches_form(deployment: Deployment, java_version: str, topic: str) -> None:
    """The same properties as from Apache's broker of 5.3.3, but for one of our own."""
    deliver_ms = int(time.time() * 1000) + 1_500
    with WireClient(deployment.broker) as wire:
        for queue_id, (name, (value, _)) in enumerate(FORMS.items()):
            given = {"UNIQ_KEY": KEY, "KEYS": "k", "TAGS": "A", name: value or str(deliver_ms)}
            text = "".join(f"{key}\x01{one}\x02" for key, one in given.items())
            assert wire.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic, queue_id, text), b"body").code == 0
        time.sleep(3.5)
        for queue_id, (name, (value, expected)) in enumerate(FORMS.items()):
            (record,) = pulled(wire, topic, queue_id)
            properties = decode_properties(record.properties)
            assert set(properties) - OUR_OWN == expected, name
            assert properties[name] == (value or str(deliver_ms))
            assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == (topic, str(queue_id))
            assert (record.body, record.sys_flag, record.reconsume_times) == (b"body", 0, 0)
            if name.startswith("TIMER"):
                assert int(properties["TIMER_OUT_MS"]) % 1000 == 0


@pytest.mark.usefixtures("only_newest")
def test_recalls_are_answered_in_apaches_words(deployment: Deployment, java_version: str, topic: str) -> None:
    """Codes and first words of remarks as recorded from 5.3.3; the handle names the second before the time."""
    now_ms = int(time.time() * 1000)
    deliver_ms = now_ms + 60_000
    with WireClient(deployment.broker) as wire:

        def recall(handle: str, of_topic: str = topic) -> tuple[int, str, str | None]:
            fields = {"producerGroup": "P", "topic": of_topic, "recallHandle": handle}
            reply = wire.request(RequestCode.RECALL_MESSAGE, fields)
            return reply.code, reply.remark or "", (reply.ext_fields or {}).get("msgId")

        def handle_of(of_topic: str = topic, broker_name: str = "broker-a", at_ms: int = deliver_ms) -> str:
            return encode_recall_handle(RecallHandle(of_topic, broker_name, at_ms, KEY))

        text = f"UNIQ_KEY\x01{KEY}\x02TIMER_DELIVER_MS\x01{deliver_ms}\x02"
        sent = wire.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic, 0, text), b"body")
        assert sent.ext_fields is not None
        handle = sent.ext_fields["recallHandle"]
        assert decode_recall_handle(handle) == RecallHandle(topic, "broker-a", (deliver_ms - 1) // 1000 * 1000 + 1, KEY)
        for _ in range(2):
            code, _, message_id = recall(handle)
            assert (code, message_id) == (0, KEY)
        for wrong, of_topic, code, words in (
            ("rubbish", topic, 604, "recall handle is invalid"),
            (handle_of("Other"), topic, 604, "recall failed, topic not match"),
            (handle_of(broker_name="broker-b"), topic, 604, "recall failed, broker service not available"),
            (handle_of(at_ms=now_ms - 1), topic, 604, "recall failed, timestamp invalid"),
            (handle_of(at_ms=now_ms + 10 * TOO_FAR_MS), topic, 604, "recall failed, timestamp invalid"),
            (handle_of("Other"), "Other", 17, "recall failed, the topic[Other] not exist"),
        ):
            answer = recall(wrong, of_topic)
            assert (answer[0], answer[1].startswith(words), answer[2]) == (code, True, None), answer
