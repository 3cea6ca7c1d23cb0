"""A directory that an Apache broker left, with what was under way in it: our broker goes on with all of it.

packages/store/tests/vectors_store/README.md tells what the broker was sent; no message of it had come due.
"""

import gzip
import shutil
from pathlib import Path

import pytest
from apogeemq.broker.assembly import Broker
from apogeemq.broker.config import BrokerConfig, IdentityConfig, StoreSettings
from apogeemq.broker.metadata_files import metadata_files
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.config import StoreConfig
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import MessageStore

from packages.broker.tests.test_transactions import HALF_TOPIC
from packages.broker.tests.world import STORE_HOST, Client, producer_beat, properties_of, until

VECTORS = Path(__file__).parents[2] / "store" / "tests" / "vectors_store"
TIMER_WHEEL_SIZE_BYTES = 38_707_200
TIMER_LOG_SIZE_BYTES = 100 << 20
LEFT_MS = 1_795_356_825_733
"""When the last record was stored."""
TIMER_OUT_MS = 1_795_360_422_000
"""The second in which its broker would have delivered the message of an hour: a property of the record."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the directory, with files of their real (sparse) sizes."""
    directory = Path(shutil.copytree(VECTORS, tmp_path / "java", ignore=shutil.ignore_patterns("*.gz", "index")))
    with gzip.open(VECTORS / "timerwheel.gz") as packed, (directory / "timerwheel").open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
        unpacked.truncate(TIMER_WHEEL_SIZE_BYTES)
    with (directory / "timerlog" / f"{0:020}").open("r+b") as log:
        log.truncate(TIMER_LOG_SIZE_BYTES)
    return directory


def records(store: MessageStore, topic: str, queue_id: int) -> list[Record]:
    found = []
    for offset in range(store.max_offset(topic, queue_id)):
        unit = store.queue_unit(topic, queue_id, offset)
        assert unit is not None
        data = store.record_at(unit[0])
        assert data is not None
        found.append(decode_record(data))
    return found


async def test_what_was_under_way_goes_on(directory: Path) -> None:
    """The timer's message and the delayed one come at their times, the undecided transaction's producer is asked."""
    clock = ManualClock(LEFT_MS + 1_000)
    config = BrokerConfig(
        identity=IdentityConfig(broker_name="broker-t", cluster_name="TapCluster"),
        store=StoreSettings(path=str(directory)),
    )
    store = MessageStore.open(
        directory,
        StoreConfig(store_host=STORE_HOST, commit_log_file_size_bytes=1 << 30, consume_queue_file_units=300_000),
        now_ms=clock.now_ms,
        redispatch_tags_code=tags_code_rule(config.store.message_delay_level),
        background=False,
    )
    broker = Broker(
        config,
        store,
        metadata_files(RealDisk(), directory),
        store_host=STORE_HOST,
        clock=clock,
        chance=SeededChance(7),
    )
    await broker.restore()
    broker.start()

    producer = Client(broker)
    producer.heartbeat(producer_beat("p1", "P_store"))
    await clock.run_for(10)
    (asked,) = producer.pushed()
    question = decode_record(asked.body)
    assert (question.body, question.topic) == (b"trans UNKNOW", "StoreTrans")
    assert properties_of(records(store, HALF_TOPIC, 0)[-1])["TRAN_PREPARED_QUEUE_OFFSET"] == "2"

    await clock.run_for((TIMER_OUT_MS - 1 - clock.now_ms()) / 1000)
    assert records(store, "StoreDelay", 1) == []
    await clock.run_for(1.1)  # that second is known, not the millisecond in it: so when it is over
    await until(lambda: store.max_offset("StoreDelay", 1) == 1)
    assert records(store, "StoreDelay", 1)[0].body == b"deliver in an hour"
    assert records(store, "StoreDelay", 0) == []
    await clock.run_for(3_700)
    assert [record.body for record in records(store, "StoreDelay", 0)] == [b"delay level 18"]
    await broker.stop()
    store.close()
