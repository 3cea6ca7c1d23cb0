"""How a broker starts, fails to start and stops, on real files and a network in memory."""

import asyncio
import errno
import shutil
import socket
import threading
from pathlib import Path

import pytest
from apogeemq.broker.app import BrokerApp
from apogeemq.broker.config import BrokerConfig, IdentityConfig, ListenersConfig, StoreSettings
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.config import ListenerConfig, TlsConfig
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.health import Health
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.metrics import Registry
from apogeemq.store.config import StoreConfig
from apogeemq.store.errors import StoreInUse
from apogeemq.store.files import Disk, RealDisk
from apogeemq.store.message_store import MessageStore

HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
FREE_PORT = ListenerConfig(host="127.0.0.1", port=0)
LISTENERS = ListenersConfig(remoting=FREE_PORT, mesh=FREE_PORT, http=FREE_PORT)


def broker(store: Path, *, listeners: ListenersConfig = LISTENERS, disk: Disk | None = None) -> BrokerApp:
    clock, chance = SystemClock(), SeededChance(1)
    return BrokerApp(
        BrokerConfig(
            identity=IdentityConfig(broker_name="b", namesrv_addr=""),
            listeners=listeners,
            store=StoreSettings(path=str(store)),
        ),
        network=MemoryNetwork(clock, chance),
        clock=clock,
        chance=chance,
        health=Health(),
        registry=Registry(),
        disk=disk,
    )


class HaltingDisk(RealDisk):
    """Real files; the thread that first touches `name` halts there until `go_on` is set."""

    def __init__(self, name: str) -> None:
        self.halted = asyncio.Event()
        self.go_on = threading.Event()
        self._name = name
        self._loop = asyncio.get_running_loop()

    def list_dir(self, path: Path) -> list[str]:
        self._halt_at(path)
        return super().list_dir(path)

    def write_file(self, path: Path, data: bytes) -> None:
        self._halt_at(path)
        super().write_file(path, data)

    def _halt_at(self, path: Path) -> None:
        if path.name == self._name:
            self._loop.call_soon_threadsafe(self.halted.set)
            assert self.go_on.wait(60)


class DiskWithBadFile(RealDisk):
    """Real files, but for one name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write_file(self, path: Path, data: bytes) -> None:
        if path.name == self._name:
            raise OSError(errno.EIO, "a bad sector", str(path))
        super().write_file(path, data)


def crashed_store(directory: Path) -> Path:
    """What a broker leaves that was killed with one message in its log."""
    live = directory / "live"
    store = MessageStore.open(live, StoreConfig(store_host=HOST), now_ms=lambda: 1_700_000_000_000)
    store.append("T", 0, 0, 0, 1, HOST, 0, 0, b"body", b"", 0)
    crashed = directory / "crashed"
    crashed.mkdir()
    (crashed / "commitlog").mkdir()
    log = "commitlog/00000000000000000000"
    with (live / log).open("rb") as whole:
        (crashed / log).write_bytes(whole.read(4096))
    shutil.copy(live / "checkpoint", crashed)
    shutil.copy(live / "abort", crashed)
    store.close()
    return crashed


async def test_a_stop_during_recovery_gives_the_recovery_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A start that is cancelled while the store recovers ends without checking the rest; the next start recovers."""
    store = crashed_store(tmp_path)
    disk = HaltingDisk("consumequeue")  # looked at before the log is scanned
    starting = asyncio.ensure_future(broker(store, disk=disk).start())
    await disk.halted.wait()
    starting.cancel()
    await asyncio.sleep(0)
    disk.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert "stopped while the store was opening: recovery was given up after 0 MiB" in caplog.text
    assert (store / "abort").exists()
    assert not list((store / "consumequeue").glob("T/0/*"))

    app = broker(store)
    await app.start()
    assert app.broker.store.max_offset("T", 0) == 1
    assert not app.broker.store.recovery.clean
    await app.stop()
    assert not (store / "abort").exists()


async def test_a_failed_start_lets_go_of_the_port(tmp_path: Path) -> None:
    """When the store can't be opened, the address that was taken before is free again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listeners = ListenersConfig(
        remoting=ListenerConfig(host="127.0.0.1", port=port), mesh=FREE_PORT, http=ListenerConfig(enabled=False)
    )
    with MessageStore.open(tmp_path / "store", StoreConfig(store_host=HOST), now_ms=lambda: 1_700_000_000_000):
        app = broker(tmp_path / "store", listeners=listeners)
        with pytest.raises(StoreInUse, match=str(tmp_path / "store")):
            await app.start()
    again = broker(tmp_path / "store", listeners=listeners)
    await again.start()
    assert again.endpoints["remoting"] == f"127.0.0.1:{port}"
    await again.stop()


@pytest.mark.parametrize("name", ["remoting", "vip", "mesh", "http"])
def test_certificates_are_looked_at_before_anything_starts(tmp_path: Path, name: str) -> None:
    """Files that are no certificate are a wrong setting (exit code 2), not a failed start."""
    no_certificate = tmp_path / "cert.pem"
    no_certificate.write_text("no certificate\n")
    tls = TlsConfig(mode="enforcing", cert_path=str(no_certificate), key_path=str(tmp_path / "missing.pem"))
    listeners = ListenersConfig(**{name: ListenerConfig(tls=tls)})
    with pytest.raises(ConfigError, match=r"cert\.pem|missing\.pem"):
        broker(tmp_path / "store", listeners=listeners)


async def test_name_servers_may_be_asked_for_at_start(tmp_path: Path) -> None:
    """Whoever embeds a broker tells where the name servers are when it starts; the settings' own are then not used."""
    asked: list[str] = []

    def namesrvs() -> list[str]:
        asked.append("now")
        return []

    clock, chance = SystemClock(), SeededChance(1)
    app = BrokerApp(
        BrokerConfig(
            identity=IdentityConfig(broker_name="b", namesrv_addr="nowhere.invalid:9877"),
            listeners=LISTENERS,
            store=StoreSettings(path=str(tmp_path / "store")),
        ),
        network=MemoryNetwork(clock, chance),
        clock=clock,
        chance=chance,
        health=Health(),
        registry=Registry(),
        namesrvs=namesrvs,
    )
    assert asked == []
    await app.start()
    assert asked == ["now"]
    await app.stop()


async def test_a_stop_waits_for_tables_being_written(tmp_path: Path) -> None:
    """The last write of a table begins when the one in hand has ended: both use the same temporary file."""
    disk = HaltingDisk("topics.json.tmp")
    app = broker(tmp_path / "store", disk=disk)
    await app.start()
    await disk.halted.wait()
    app.broker.topics.create_for_group("%RETRY%late", 1)
    stopping = asyncio.ensure_future(app.stop())
    for _ in range(100):
        await asyncio.sleep(0)
    disk.go_on.set()
    await stopping
    assert b"%RETRY%late" in (tmp_path / "store" / "config" / "topics.json").read_bytes()
    assert b"%RETRY%late" not in (tmp_path / "store" / "config" / "topics.json.bak").read_bytes()
    assert not (tmp_path / "store" / "abort").exists()


async def test_a_table_that_cannot_be_written_costs_the_others_nothing(tmp_path: Path) -> None:
    """At a stop every table is written that can be; the first failure is raised, and the store is closed."""
    app = broker(tmp_path / "store", disk=DiskWithBadFile("topics.json.tmp"))
    await app.start()
    app.broker.offsets.commit("T", "G", 0, 7)
    with pytest.raises(OSError, match="a bad sector"):
        await app.stop()
    assert b'"T@G"' in (tmp_path / "store" / "config" / "consumerOffset.json").read_bytes()
    assert not (tmp_path / "store" / "abort").exists()
