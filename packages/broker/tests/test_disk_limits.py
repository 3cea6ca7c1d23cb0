"""A broker on a disk that is nearly full: sends are refused with the reason, everything else goes on."""

import pytest
from apogeemq.mesh.errors import CallRefused
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.files import DiskSpace

from packages.broker.tests.mesh_asking import Asker
from packages.broker.tests.world import World, consumer_beat, pull_fields, send_fields

TEXT = (
    "the disk of /store is 95.0% full with 5120 MiB free: nothing more is stored (limit: diskSpaceWarningLevelRatio "
    "= 90). Free some space, or move the limit; storing then goes on by itself"
)


def fill(world: World, percent: int) -> None:
    """Let others use the disk, so that this share of its 100 GiB is used, and let the store see it."""
    world.disk.space = lambda path: DiskSpace(100 << 30, 100 - percent << 30)  # type: ignore[method-assign]  # see above
    world.store.flush_once()


async def test_remoting_sends_are_refused_and_taken_again() -> None:
    """Code 14 with the whole reason, while the disk is too full; pulls are served."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields(), b"before").code == 0
        fill(world, 95)
        refused = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(), b"refused")
        assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE
        assert TEXT in (refused.remark or "")
        assert world.store.max_offset("T", 0) == 1
        fill(world, 50)
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields(), b"after").code == 0
        assert [record.body for record in world.records("T")] == [b"before", b"after"]


async def test_pulls_go_on() -> None:
    """Who consumes makes no use of the disk's last bytes."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        client.request(RequestCode.SEND_MESSAGE_V2, send_fields(), b"before")
        client.heartbeat(consumer_beat())
        fill(world, 95)
        found = client.request(RequestCode.PULL_MESSAGE, pull_fields())
        assert (found.code, decode_record(found.body).body) == (ResponseCode.SUCCESS, b"before")


async def test_mesh_sends_are_refused() -> None:
    """Proxies get the same code and reason."""
    async with World() as world:
        world.create_topic()
        fill(world, 95)
        with pytest.raises(CallRefused) as refused:
            await Asker(world).send()
        assert refused.value.code == ResponseCode.SERVICE_NOT_AVAILABLE
        assert TEXT in refused.value.text


async def test_the_log_tells_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not at every look, and not at every refused send."""
    async with World() as world:
        for percent in (50, 86, 86, 95, 95, 50, 50):
            fill(world, percent)
        told = [record.levelname for record in caplog.records if record.name == "apogeemq.store.disk_watch"]
        assert told == ["WARNING", "ERROR"]
