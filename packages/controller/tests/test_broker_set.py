"""Keys and values of a broker set, as docs/formats/controller.md has them."""

import pytest
from apogeemq.controller.core.broker_set import Place, Replica, SetKeys, SyncState, decode, encode, place_of
from apogeemq.controller.core.etcd import StoredKey


def stored(value: bytes) -> StoredKey:
    return StoredKey(b"/somewhere", value, 1, 1, 1)


def test_names_of_keys() -> None:
    """Ids in ten digits, so that they sort."""
    keys = SetKeys("one", "broker-a")
    assert keys.active == b"/apogeemq/one/controller/active"
    assert keys.state == b"/apogeemq/one/controller/sets/broker-a/state"
    assert keys.replica(7) == b"/apogeemq/one/controller/sets/broker-a/replicas/0000000007"
    assert keys.live(7) == b"/apogeemq/one/controller/live/broker-a/0000000007"


def test_a_state_is_json() -> None:
    """The members of the table, in its order."""
    state = SyncState(2, 5, (1, 2), 9, loss_epoch=3)
    text = b'{"master_id":2,"master_epoch":5,"members":[1,2],"set_epoch":9,"possible_loss":false,"loss_epoch":3}'
    assert encode(state) == text
    assert decode(SyncState, stored(text)) == state


def test_members_of_a_newer_controller_are_passed_over() -> None:
    """And those that an older one did not write have their defaults."""
    text = b'{"broker_id":1,"check_code":"c","address":"a","incarnation":2,"boot_id":"b","colour":"red"}'
    assert decode(Replica, stored(text)) == Replica(1, "c", "a", 2, "b")


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"{}", b'{"members":1}', b'{"members":[1,"x"]}'])
def test_what_is_no_state_names_its_key(value: bytes) -> None:
    """Somebody else wrote there: the message says where."""
    with pytest.raises(ValueError, match="/somewhere holds no SyncState"):
        decode(SyncState, stored(value))


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (b"/apogeemq/one/controller/sets/broker-a/state", Place("broker-a")),
        (b"/apogeemq/one/controller/sets/broker-a/replicas/0000000007", Place("broker-a")),
        (b"/apogeemq/one/controller/live/broker-a/0000000007", Place("broker-a", 7)),
        (b"/apogeemq/one/controller/active", None),
        (b"/apogeemq/one/controller/live/broker-a/0000000000", None),
        (b"/apogeemq/one/controller/sets/broker-a/colour", None),
        (b"/apogeemq/one/controller/sets/\xff/extra/state", None),
    ],
)
def test_what_a_key_is_about(key: bytes, place: Place | None) -> None:
    """What others put there is nobody's."""
    assert place_of("one", key) == place
