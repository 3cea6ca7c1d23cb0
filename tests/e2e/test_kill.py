"""SIGKILL at a real process: what was acknowledged in class page cache is there afterwards, and damage is told.

A killed process loses what it had not handed to the kernel yet; a power failure would lose what was not flushed. The
latter is played by damaging the log behind the flushed offset of a killed process's directory.
"""

import dataclasses
import os
import pathlib
import shutil
import struct
import time
from collections.abc import Callable, Mapping

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import decode_records

from tests.e2e.http_client import metric
from tests.e2e.process import ManagedProcess, Ready, poll_until, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, send_fields, send_until_it_ends

TOPIC, GROUP = "Crash", "G_crash"
ACKNOWLEDGED_MIN = 3000
ONLY_KNOWN_TOPICS = {"broker.autoCreateTopicEnable": "false"}
SMALL_FILES = {"broker.mappedFileSizeCommitLog": str(1 << 20), "broker.mappedFileSizeConsumeQueue": "20000"}
NEVER_FLUSHED = {"broker.flushIntervalCommitLog": "3600000"}
LOG = "commitlog/00000000000000000000"
RECOVERED = "the broker was not stopped in good order; recovery: "


def start(directory: pathlib.Path, name: str, settings: Mapping[str, str]) -> ManagedProcess:
    return start_all_in_one(directory / "data", log_directory=directory / name, settings=settings)


def remoting(ready: Ready) -> WireClient:
    return WireClient(ready.listeners["broker.remoting"])


def test_every_acknowledged_message_survives_sigkill(tmp_path: pathlib.Path) -> None:
    """Killed amid pipelined sends: all that was acknowledged is pulled, in order, with gapless queue offsets."""
    with start(tmp_path, "first", {}) as process, remoting(process.wait_ready()) as client:
        acknowledged = send_until_it_ends(client, TOPIC, ACKNOWLEDGED_MIN, process.kill)
    with start(tmp_path, "second", ONLY_KNOWN_TOPICS) as process, remoting(process.wait_ready()) as client:
        records = pull_all(client, TOPIC, GROUP)
        assert len(records) >= acknowledged
        assert [record.queue_offset for record in records] == list(range(len(records)))
        assert [record.body for record in records] == [b"body %d" % number for number in range(len(records))]
        assert RECOVERED in process.log
        after = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"after")
        assert (after.ext_fields or {})["queueOffset"] == str(len(records))
        process.stop()


def test_a_delayed_message_survives_sigkill(tmp_path: pathlib.Path) -> None:
    """Killed before it was due, it is delivered by the next process: once, and not before its time."""
    delay = {"broker.messageDelayLevel": "2s"}
    before_ms = time.time_ns() // 1_000_000
    with start(tmp_path, "first", delay) as process, remoting(process.wait_ready()) as client:
        sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC, 1, "DELAY\x011\x02"), b"later")
        assert sent.code == ResponseCode.SUCCESS
        process.kill()
    with start(tmp_path, "second", delay | ONLY_KNOWN_TOPICS) as process, remoting(process.wait_ready()) as client:
        held = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
        reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, GROUP, 1, 0, **held))
        assert reply.code == ResponseCode.SUCCESS
        (record,) = decode_records(reply.body)
        assert record.body == b"later"
        assert record.store_timestamp_ms >= before_ms + 2000
        assert pull_all(client, TOPIC, GROUP, 1) == [record]
        process.stop()


# -- damage in the log


@dataclasses.dataclass(frozen=True)
class Killed:
    """A data directory whose process was killed; `offsets` are where the ten messages in its log begin."""

    data: pathlib.Path
    offsets: list[int]
    log_end: int

    def copy(self, directory: pathlib.Path) -> pathlib.Path:
        """A copy of the data to do damage to; gives its commit log."""
        shutil.copytree(self.data, directory / "data")
        return directory / "data" / "broker" / LOG


def send_ten(client: WireClient) -> tuple[list[int], int]:
    """Physical offsets of ten messages, and the end of the last."""
    offsets = []
    for number in range(10):
        sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"body %d" % number)
        offsets.append(decode_offset_message_id((sent.ext_fields or {})["msgId"])[1])
    return offsets, pull_all(client, TOPIC, GROUP)[-1].size_bytes + offsets[-1]


def flushed_offset(data: pathlib.Path) -> int:
    """What the checkpoint says is on the disk for sure; its layout is in Checkpoint's docstring."""
    (offset,) = struct.unpack_from(">q", (data / "broker" / "checkpoint").read_bytes(), 24)
    return int(offset)


@pytest.fixture(scope="module")
def unflushed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed before the first flush."""
    directory = tmp_path_factory.mktemp("unflushed")
    with start(directory, "first", SMALL_FILES | NEVER_FLUSHED) as process, remoting(process.wait_ready()) as client:
        offsets, log_end = send_ten(client)
        process.kill()
    assert flushed_offset(directory / "data") == 0
    return Killed(directory / "data", offsets, log_end)


@pytest.fixture(scope="module")
def flushed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed after everything was flushed."""
    directory = tmp_path_factory.mktemp("flushed")
    data = directory / "data"
    with start(directory, "first", SMALL_FILES) as process, remoting(process.wait_ready()) as client:
        offsets, log_end = send_ten(client)
        poll_until(lambda: flushed_offset(data) == log_end, 20, lambda: process.failure("did not flush"))
        process.kill()
    return Killed(data, offsets, log_end)


def cut_off_within_the_body(log: pathlib.Path, start: int, _end: int) -> int:
    """Do damage to the record in [start, end); gives how many bytes of it are left, up to the last that is not zero."""
    body = log.read_bytes().index(b"body", start)
    os.truncate(log, body + 2)
    return body + 2 - start


def flip_a_bit_of_the_body(log: pathlib.Path, start: int, end: int) -> int:
    """The same."""
    content = bytearray(log.read_bytes())
    content[content.index(b"body", start)] ^= 1
    log.write_bytes(content)
    return end - start


def zero_the_head(log: pathlib.Path, start: int, end: int) -> int:
    """The same."""
    with log.open("r+b") as file:
        file.seek(start)
        file.write(bytes(64))
    return end - start


@pytest.mark.parametrize("damage", [cut_off_within_the_body, flip_a_bit_of_the_body, zero_the_head])
def test_a_torn_tail_is_dropped_and_reported(
    tmp_path: pathlib.Path, unflushed: Killed, damage: Callable[[pathlib.Path, int, int], int]
) -> None:
    """What a power failure tore behind the flushed offset is cut off, with the bytes told in log and metrics."""
    last = unflushed.offsets[-1]
    dropped_bytes = damage(unflushed.copy(tmp_path), last, unflushed.log_end)
    with start(tmp_path, "second", SMALL_FILES | ONLY_KNOWN_TOPICS) as process:
        ready = process.wait_ready()
        with remoting(ready) as client:
            assert [record.body for record in pull_all(client, TOPIC, GROUP)] == [b"body %d" % n for n in range(9)]
            assert f"the log ends at {last} " in process.log
            assert f"dropping {dropped_bytes} bytes" in process.log
            dropped_metric = metric(ready.listeners["broker.http"], "apogeemq_store_recovery_dropped_bytes")
            assert dropped_metric == dropped_bytes
            again = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"again")
            assert (again.ext_fields or {})["queueOffset"] == "9"
            assert decode_offset_message_id((again.ext_fields or {})["msgId"])[1] == last
        process.stop()


def test_damage_below_the_flushed_offset_stops_the_start(tmp_path: pathlib.Path, flushed: Killed) -> None:
    """What was safe on the disk and is not what was written is no crash's doing: exit 1, offset told, log kept."""
    log = flushed.copy(tmp_path)
    damaged = flushed.offsets[4]
    zero_the_head(log, damaged, flushed.offsets[5])
    content = log.read_bytes()
    with start(tmp_path, "second", SMALL_FILES) as process:
        assert process.wait_exit(20) == 1
        assert f"the record at physical offset {damaged} is corrupt" in process.log.splitlines()[-1]
        assert list(process.lines) == []
    assert log.read_bytes() == content


def test_no_damage_no_loss(tmp_path: pathlib.Path, unflushed: Killed) -> None:
    """The same directory without damage has all ten: the tests above show what damage does, not what a kill does."""
    unflushed.copy(tmp_path)
    with start(tmp_path, "second", SMALL_FILES) as process, remoting(process.wait_ready()) as client:
        assert len(pull_all(client, TOPIC, GROUP)) == 10
        assert "dropping" not in process.log
        process.stop()
