"""A replica's way to its master's log (architecture §6.7)."""

from apogeemq.broker.core.replication.follower import (
    Acknowledge,
    Append,
    Broken,
    Chunk,
    Compare,
    Compared,
    Connect,
    Copy,
    Cut,
    Effect,
    Follow,
    Follower,
    Halt,
    Log,
    Met,
    Phase,
    SaveEpoch,
    SetConfirm,
    StartOver,
    Stop,
    Tick,
)
from apogeemq.store.epoch_file import EpochEntry

KIB = 1024
MASTER = (EpochEntry(1, 0), EpochEntry(2, 300 * KIB))


def meeting(
    log: Log, *, entries: tuple[EpochEntry, ...] = MASTER, end: int = 400 * KIB
) -> tuple[Follower, tuple[Effect, ...]]:
    """A replica with this log meets a master of epoch 2."""
    replica = Follower()
    assert replica.step(Follow(1, 2), 0) == (Connect(1, 2),)
    return replica, replica.step(Met(2, entries, 0, end, log), 10)


def copying() -> Follower:
    """A replica with all of epoch 1 copies from 300 KiB."""
    replica, _ = meeting(Log(MASTER[:1], 0, 300 * KIB, 0))
    replica.step(Compared(2, is_same=True), 20)
    return replica


def chunk(offset: int, data: bytes, *, epoch: int = 2, confirm_offset: int = 0) -> Chunk:
    return Chunk(epoch, offset, data, MASTER[1], confirm_offset)


def test_the_last_64_kib_before_the_common_point_are_compared() -> None:
    """The master's epoch 1 ended at 300 KiB, the replica went on to 350: cut there, then copy."""
    replica, effects = meeting(Log(MASTER[:1], 0, 350 * KIB, 0))
    assert effects == (Compare(236 * KIB, 300 * KIB),)
    cut = replica.step(Compared(2, is_same=True), 20)
    assert cut == (Cut(300 * KIB), Copy(300 * KIB), Acknowledge(2, 300 * KIB))


def test_an_epoch_without_records_here_is_forgotten_with_the_cut() -> None:
    """The log need not be shorter for it."""
    replica, _ = meeting(Log((MASTER[0], EpochEntry(7, 200 * KIB)), 0, 200 * KIB, 0))
    assert replica.step(Compared(2, is_same=True), 20)[0] == Cut(200 * KIB)


def test_where_bytes_differ_it_walks_back_to_the_confirm_offset_at_last() -> None:
    """From 350 KiB of epoch 2 to the end of epoch 1, to 100 KiB, which were confirmed."""
    replica, first = meeting(Log(MASTER, 0, 350 * KIB, 100 * KIB))
    assert first == (Compare(286 * KIB, 350 * KIB),)
    assert replica.step(Compared(2, is_same=False), 20) == (Compare(236 * KIB, 300 * KIB),)
    assert replica.step(Compared(2, is_same=False), 30) == (Compare(36 * KIB, 100 * KIB),)
    assert replica.step(Compared(2, is_same=True), 40)[0] == Cut(100 * KIB)


def test_confirmed_records_are_never_cut() -> None:
    """The master lacks them: somebody has to decide, and nothing goes on until then."""
    replica, effects = meeting(Log(MASTER[:1], 0, 350 * KIB, 320 * KIB))
    assert effects == (Halt(320 * KIB, 300 * KIB),)
    assert replica.phase is Phase.HALTED
    assert replica.step(Tick(), 60_000) == ()
    assert replica.step(Broken(), 60_000) == ()


def test_what_has_expired_at_the_master_is_no_reason_to_halt() -> None:
    """All that is confirmed here lies before the master's beginning: the replica begins there, with an empty log."""
    replica = Follower()
    replica.step(Follow(1, 2), 0)
    log = Log(MASTER[:1], 0, 250 * KIB, 240 * KIB)
    effects = replica.step(Met(2, MASTER, 310 * KIB, 400 * KIB, log), 10)
    assert effects == (StartOver(310 * KIB), Copy(310 * KIB), Acknowledge(2, 310 * KIB))


def test_an_empty_log_begins_where_the_masters_does() -> None:
    """And so does one of which nothing is confirmed and nothing is the master's."""
    beginning = (StartOver(0), Copy(0), Acknowledge(2, 0))
    assert meeting(Log((), 0, 0, 0))[1] == beginning
    assert meeting(Log((EpochEntry(9, 0),), 0, 50, 0))[1] == beginning


def test_an_epoch_is_on_the_disk_before_its_first_byte() -> None:
    """Then the bytes, then the acknowledgement, then what is confirmed of them."""
    effects = copying().step(chunk(300 * KIB, b"12", confirm_offset=1 << 30), 30)
    end = 300 * KIB + 2
    assert effects == (SaveEpoch(MASTER[1]), Append(300 * KIB, b"12"), Acknowledge(2, end), SetConfirm(end))


def test_a_stream_of_another_epoch_is_refused() -> None:
    """§6.3."""
    replica = copying()
    assert replica.step(chunk(300 * KIB, b"12", epoch=1), 30) == ()
    assert replica.step(Follow(3, 1), 40) == ()
    assert replica.step(chunk(300 * KIB, b"12"), 50)


def test_a_gap_begins_anew() -> None:
    """The stream is not what it was taken for."""
    assert copying().step(chunk(301 * KIB, b"12"), 30) == (Connect(1, 2),)


def test_signs_of_life() -> None:
    """An acknowledgement every half second; a master that is silent for three seconds is connected to anew."""
    replica = copying()
    assert replica.step(Tick(), 519) == ()
    assert replica.step(Tick(), 520) == (Acknowledge(2, 300 * KIB),)
    assert replica.step(chunk(300 * KIB, b""), 1_000) == (SetConfirm(0),)
    replica.step(Tick(), 3_999)
    assert replica.step(Tick(), 4_000) == (Connect(1, 2),)


def test_a_broken_stream_is_opened_again_after_half_a_second() -> None:
    """Unless the replica was told to stop."""
    replica = copying()
    assert replica.step(Broken(), 1_000) == ()
    assert replica.step(Tick(), 1_499) == ()
    assert replica.step(Tick(), 1_500) == (Connect(1, 2),)
    replica.step(Stop(), 1_600)
    assert replica.step(Broken(), 1_700) == ()
    assert replica.step(Tick(), 9_000) == ()
