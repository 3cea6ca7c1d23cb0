"""config/setMember.json: what makes a directory the same broker at its next start."""

from pathlib import Path

import pytest
from apogeemq.broker.member_file import MemberFile, SetMembership, began, remembering
from apogeemq.mesh.errors import ConfigError
from apogeemq.store.memory_disk import MemoryDisk

ROOT = Path("/store")
FILE = ROOT / "config" / "setMember.json"


def next_start(known: SetMembership | None, *, dropped_bytes: int = 0, broker_name: str = "broker-a") -> SetMembership:
    return began(known, cluster="C", broker_name=broker_name, check_code="code-1", dropped_bytes=dropped_bytes)


def test_a_new_directory_gets_its_code() -> None:
    """Without an id, at its first start."""
    membership = next_start(None)
    assert (membership.broker_id, membership.check_code, membership.incarnation) == (0, "code-1", 1)


def test_it_is_found_again() -> None:
    """What was saved is what is loaded, and starts are counted on."""
    disk = MemoryDisk()
    saved = SetMembership(
        cluster="C",
        broker_name="broker-a",
        broker_id=2,
        check_code="mine",
        incarnation=7,
        clean_stop=False,
        master_epoch=4,
        members=(1, 2),
    )
    MemberFile(disk, ROOT).save(saved)
    loaded = MemberFile(disk, ROOT).load()
    assert loaded == saved
    assert next_start(loaded).incarnation == 8
    assert next_start(loaded).check_code == "mine"


def test_the_newest_set_is_remembered() -> None:
    """A newer state takes the place of an older one; of the same epochs whoever may be in it is kept (docs/ha.md)."""
    known = remembering(next_start(None), 3, 7, {1, 2, 3})
    assert (known.master_epoch, known.set_epoch, known.members) == (3, 7, (1, 2, 3))
    assert remembering(known, 2, 9, {1}) == known
    assert remembering(known, 3, 7, {1, 2, 4}).members == (1, 2, 3, 4)
    assert remembering(known, 3, 8, {1, 2}).members == (1, 2)
    assert remembering(known, 4, 1, {2}).members == (2,)


def test_lost_bytes_are_remembered() -> None:
    """Until a registration told of them: a start that told nobody must not hide them (docs/ha.md)."""
    lost = next_start(next_start(None), dropped_bytes=10)
    assert lost.lost_unsynced
    assert next_start(lost).lost_unsynced


def test_a_directory_of_another_set_is_refused() -> None:
    """With both names, and what to do."""
    known = next_start(None)
    with pytest.raises(ConfigError, match=r"belongs to broker set broker-a .*a directory of its own"):
        next_start(known, broker_name="broker-b")


@pytest.mark.parametrize("content", [b"", b"{", b'{"cluster": 1}', b"[]", b"\xff\xfe"])
def test_a_file_that_is_none_stops_the_start(content: bytes) -> None:
    """A broker that forgot who it is would take another's place."""
    disk = MemoryDisk()
    disk.write_file(FILE, content)
    with pytest.raises(ConfigError, match="cannot be read"):
        MemberFile(disk, ROOT).load()


def test_a_huge_file_is_not_read() -> None:
    """It is not this broker's."""
    disk = MemoryDisk()
    disk.write_file(FILE, bytes(2 << 20))
    with pytest.raises(ConfigError, match="2097152 bytes"):
        MemberFile(disk, ROOT).load()
