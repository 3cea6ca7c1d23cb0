"""One store directory in turns: ours, Apache's 5.3.3, ours again; the other way round; and after a kill of ours.

Each owner must find everything that the earlier ones stored, by queue, offset, id and key, with its offsets and with
what is still to be delivered, timers too; then it adds its share and stops in good order. `apogeemq-store check` finds
nothing wrong at any change of hands.
"""

import dataclasses
import multiprocessing
import pathlib
import signal

import pytest
from apogeemq.remoting_codec.codes import RequestCode

from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient, pull_all
from tests.interop.shared_store import LOG_FILE_SIZE_BYTES, Owner, SharedStore
from tests.interop.store_ledger import (
    GROUP,
    ORDERS,
    Due,
    Ledger,
    fields_of,
    message,
    now_ms,
    scheduled,
    succeed,
)
from tests.interop.store_timers import TIMED, Timer, open_store, pending_bodies, read_timer_queue, write_and_die

pytestmark = pytest.mark.verify

COUNT = 1_000
SMALL_COUNT = 200
LEVEL_OF_PENDING = {Owner.OURS: 3, Owner.APACHE: 4}
"""10 s and 20 s: Apache's stop takes some ten seconds, and what is pending must stay so."""
SAVE_TIMEOUT_S = 30.0
WRITER_TIMEOUT_S = 30.0
JAVAS_LEFT_MS = 25_000
"""Its stop takes some ten seconds: long after it."""
SOON_MS = 10_000
"""Apache's broker is up by then, and its store's timer runs; if it is not, all is late, and nothing else."""


@pytest.mark.parametrize(
    "owners",
    [(Owner.OURS, Owner.APACHE, Owner.OURS), (Owner.APACHE, Owner.OURS, Owner.APACHE)],
    ids=["ours-first", "apache-first"],
)
def test_a_store_goes_to_and_fro(java_command: str, tmp_path: pathlib.Path, owners: tuple[Owner, ...]) -> None:
    """Nothing is lost, changed or delivered twice at either change of owners."""
    store, ledger = SharedStore(tmp_path), Ledger()
    turns = {f"turn{number}": owner for number, owner in enumerate(owners)}
    for turn, owner in turns.items():
        # Once every single message: by Apache's in a store that it did not make.
        ledger.step = 1 if owner is Owner.APACHE and owners[0] is Owner.OURS else 2
        with store.start(owner) as process:
            with WireClient(store.address) as client:
                look_at_all(ledger, client)
                ledger.fill(client, turn, COUNT)
                ledger.look_by_id(client)
                ledger.look_by_key(client)
                ledger.leave_pending(client, turn, LEVEL_OF_PENDING[owner])
                if owner is Owner.OURS:
                    ledger.leave_popped(client, turn)
                delayed = scheduled(client, LEVEL_OF_PENDING[owner])
            store.stop(owner, process)
        store.check()
        left = delayed - store.delay_progress(LEVEL_OF_PENDING[owner])
        assert left == 2, "what is pending is for the next owner"
    assert len(list((store.path / "commitlog").iterdir())) > len(owners) * COUNT * 2000 // LOG_FILE_SIZE_BYTES


def test_a_store_of_a_killed_broker_goes_over(java_command: str, tmp_path: pathlib.Path) -> None:
    """All that ours acknowledged before kill -9 is there for Apache's once `convert` was run, and for ours again."""
    store, ledger = SharedStore(tmp_path), Ledger()
    with store.start(Owner.OURS) as process, WireClient(store.address) as client:
        ledger.fill(client, "turn0", COUNT // 2)
        ledger.leave_pending(client, "turn0", LEVEL_OF_PENDING[Owner.OURS])
        ledger.leave_popped(client, "turn0")
        last = f"3:{ledger.committed[ORDERS, 3]}"
        poll_until(
            lambda: store.has_saved("consumerOffset", last) and store.has_saved("consumerOffset", f"@{GROUP}"),
            SAVE_TIMEOUT_S,
            lambda: process.failure("did not save the group's offsets"),
        )
        ledger.send_until_killed(client, "load", COUNT, process.kill)
    assert (store.path / "abort").exists()
    store.convert_to_java()
    store.check()
    for turn, owner in {"turn1": Owner.APACHE, "turn2": Owner.OURS}.items():
        with store.start(owner) as process:
            with WireClient(store.address) as client:
                look_at_all(ledger, client)
                ledger.fill(client, turn, COUNT // 2)
                ledger.look_by_id(client)
                ledger.look_by_key(client)
            store.stop(owner, process)
        store.check()


def test_timers_go_over(java_command: str, tmp_path: pathlib.Path) -> None:
    """Apache's delivers what waits in our timer, none early or twice, none that we delivered; the rest comes back.

    What it took in itself our broker delivers, or takes back by the handle that Apache's gave.
    """
    store, ledger = SharedStore(tmp_path), Ledger()
    with store.start(Owner.OURS) as process:
        with WireClient(store.address) as client:
            ledger.fill(client, "turn0", SMALL_COUNT)
            first = message(TIMED, "turn0", 0)
            succeed(client, RequestCode.SEND_MESSAGE_V2, fields_of(first), first.body)  # makes the topic
        store.stop(Owner.OURS, process)
    began_ms = now_ms()
    overdue = [Timer(f"OVERDUE{number}", began_ms + 500 + number) for number in range(5)]
    soon = [Timer(f"SOON{number}", began_ms + SOON_MS + number * 333) for number in range(10)]
    delivered = [Timer(f"DELIVERED{number}", soon[number].deliver_ms, is_delivered=True) for number in range(5)]
    far = [Timer(f"FAR{hours}", began_ms + hours * 3_600_000 + hours) for hours in (1, 24, 71)]
    writer = multiprocessing.get_context("spawn").Process(
        target=write_and_die, args=(store.path, [*far, *soon, *delivered, *overdue])
    )
    writer.start()
    writer.join(WRITER_TIMEOUT_S)
    assert writer.exitcode == -signal.SIGKILL
    store.convert_to_java()
    store.check()
    ledger.pending = [Due(TIMED, timer.unique_key, timer.body, timer.deliver_ms) for timer in [*overdue, *soon]]
    javas = dataclasses.replace(message(TIMED, "java", 0), properties={"TIMER_DELAY_MS": "7200000", "UNIQ_KEY": "JAVA"})
    with store.start(Owner.APACHE) as process:
        with WireClient(store.address) as client:
            look_at_all(ledger, client)
            succeed(client, RequestCode.SEND_MESSAGE_V2, fields_of(javas), javas.body)
            left = [Timer(f"LEFT{number}", now_ms() + JAVAS_LEFT_MS + number * 501) for number in range(4)]
            handles = [send_timer(client, timer) for timer in left]
            ledger.fill(client, "turn1", SMALL_COUNT)
            assert len(pull_all(client, TIMED, GROUP)) == 1 + len(overdue) + len(soon)
        store.stop(Owner.APACHE, process)
    with open_store(store.path) as opened:
        read_timer_queue(opened)
        assert opened.timer.due(now_ms(), 10) == []
        assert pending_bodies(opened) == {javas.body} | {timer.body for timer in [*far, *left]}
        assert opened.timer.pending_count == len(far) + 1 + len(left)
        deliver_ms = sorted(entry.deliver_ms for entry in opened.timer.live_before(opened.written_offset))
        assert [timer.deliver_ms in deliver_ms for timer in far] == [True] * len(far)
    store.check()
    with store.start(Owner.OURS) as process:
        with WireClient(store.address) as client:
            succeed(
                client, RequestCode.RECALL_MESSAGE, {"producerGroup": "P", "topic": TIMED, "recallHandle": handles[0]}
            )
            ledger.pending = [Due(TIMED, timer.unique_key, timer.body, timer.deliver_ms) for timer in left[1:]]
            look_at_all(ledger, client)
            assert len(pull_all(client, TIMED, GROUP)) == 1 + len(overdue) + len(soon) + len(left) - 1
        store.stop(Owner.OURS, process)
    store.check()


def send_timer(client: WireClient, timer: Timer) -> str:
    """Send it to the broker; gives the handle that takes it back."""
    properties = {"TIMER_DELIVER_MS": str(timer.deliver_ms), "UNIQ_KEY": timer.unique_key}
    sent = dataclasses.replace(message(TIMED, "java", 0), properties=properties)
    reply = succeed(client, RequestCode.SEND_MESSAGE_V2, fields_of(sent), timer.body)
    assert reply.ext_fields is not None
    return reply.ext_fields["recallHandle"]


def look_at_all(ledger: Ledger, client: WireClient) -> None:
    """What the owners before left, also what was to be delivered later."""
    ledger.look(client)
    ledger.look_at_offsets(client)
    ledger.await_pending(client)
