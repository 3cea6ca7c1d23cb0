"""One store directory that our broker and Apache's open in turns, at one address, with files that soon roll over."""

import enum
import os
import pathlib
import sys

from apogeemq.remoting_codec.bodies import DelayOffsetSerializeWrapper
from apogeemq.store.config import StoreConfig

from tests.e2e.process import ManagedProcess, start_service
from tests.interop.deployments import (
    APACHE_START_TIMEOUT_S,
    BROKER_NAME,
    free_ports,
    is_apache_booted,
    start_apache,
    write_properties,
)
from tests.interop.store_ledger import DELAY_LEVELS

LOG_FILE_SIZE_BYTES = 1 << 20
CONSUME_QUEUE_FILE_UNITS = 100
INDEX_SLOTS = 500
INDEX_ENTRIES = 2_000
"""Each message of the ledger has three keys: some 700 of them fill an index file."""
STORE_CONFIG = StoreConfig(
    store_host=b"\x7f\x00\x00\x01\x00\x00\x2a\x9f",
    commit_log_file_size_bytes=LOG_FILE_SIZE_BYTES,
    consume_queue_file_units=CONSUME_QUEUE_FILE_UNITS,
    index_slots=INDEX_SLOTS,
    index_entries_max=INDEX_ENTRIES,
)
"""For whoever opens the directory without a broker."""
STOP_TIMEOUT_S = 40.0
"""Apache's broker sleeps for seconds in several places of its stop."""
COMMAND_TIMEOUT_S = 60.0

APACHE_ONLY = {
    "brokerId": "0",
    "cleanFileForciblyEnable": "false",
    # Without these it would turn sends away on a busy machine.
    "waitTimeMillsInSendQueue": "10000",
    "osPageCacheBusyTimeOutMills": "10000",
}


class Owner(enum.Enum):
    """Whose broker has the directory; the value is the exit code of its orderly end."""

    OURS = 0
    APACHE = 143  # a JVM ends with 128 + 15 after its shutdown hooks


class SharedStore:
    """The directory, and what both brokers are told about it. Neither is told of a name server."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "store"
        self._home = directory / "home"
        self._home.mkdir(parents=True)
        self._logs = directory / "logs"
        _, self._port, self._ha_port = free_ports()
        self._starts = 0

    @property
    def address(self) -> str:
        """Where clients reach whoever has it: "host:port"."""
        return f"127.0.0.1:{self._port}"

    def start(self, owner: Owner) -> ManagedProcess:
        """That broker, serving the directory."""
        self._starts += 1
        name = f"{self._starts}-{owner.name.lower()}"
        if owner is Owner.OURS:
            return self._start_ours(name)
        return self._start_apache(name)

    def stop(self, owner: Owner, process: ManagedProcess) -> None:
        """An orderly end; fails when it is none, or when it leaves the mark of a crash."""
        process.stop(STOP_TIMEOUT_S, expected_exit_code=owner.value)
        assert not (self.path / "abort").exists()

    def check(self) -> None:
        """`apogeemq-store check` finds nothing wrong in the stopped store."""
        self._run("check")

    def convert_to_java(self) -> None:
        """`apogeemq-store convert --to java`: ready for Apache's broker, also after a kill."""
        self._run("convert", "--to", "java")
        assert not (self.path / "abort").exists()

    def _run(self, subcommand: str, *options: str) -> None:
        self._starts += 1
        argv: list[str | os.PathLike[str]] = [
            sys.executable,
            "-m",
            "apogeemq.store",
            subcommand,
            os.fspath(self.path),
            f"--index-slots={INDEX_SLOTS}",
            f"--index-entries={INDEX_ENTRIES}",
            f"--delay-levels={DELAY_LEVELS}",
            *options,
        ]
        with ManagedProcess(f"{self._starts}-{subcommand}", argv, log_directory=self._logs) as process:
            exit_code = process.wait_exit(COMMAND_TIMEOUT_S)
            if exit_code != 0:
                raise process.failure(f"exit code {exit_code}")

    def has_saved(self, name: str, words: str) -> bool:
        """Whether a table under config/ says something, itself or in its journal: what a kill does not take."""
        files = [self.path / "config" / f"{name}.{ending}" for ending in ("json", "journal")]
        return any(words.encode() in file.read_bytes() for file in files if file.exists())

    def delay_progress(self, level: int) -> int:
        """The queue offset of the first message of a delay level that is still to be delivered, as saved."""
        body = (self.path / "config" / "delayOffset.json").read_bytes()
        return DelayOffsetSerializeWrapper.decode(body).offset_table.get(level, 0)

    def _properties(self) -> dict[str, str]:
        return {
            "brokerName": BROKER_NAME,
            "brokerClusterName": "DefaultCluster",
            "namesrvAddr": "",
            "brokerIP1": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": str(self._port),
            "storePathRootDir": os.fspath(self.path),
            "storePathCommitLog": os.fspath(self.path / "commitlog"),
            "mappedFileSizeCommitLog": str(LOG_FILE_SIZE_BYTES),
            "mappedFileSizeConsumeQueue": str(CONSUME_QUEUE_FILE_UNITS * 20),
            "maxHashSlotNum": str(INDEX_SLOTS),
            "maxIndexNum": str(INDEX_ENTRIES),
            "messageDelayLevel": DELAY_LEVELS,
        }

    def _start_ours(self, name: str) -> ManagedProcess:
        config = write_properties(self._home / "ours.properties", self._properties())
        ports = {"listeners.mesh.port": "0", "listeners.http.port": "0"}
        process = start_service("broker", config=config, settings=ports, log_directory=self._logs, name=name)
        process.wait_ready()
        return process

    def _start_apache(self, name: str) -> ManagedProcess:
        properties = {**self._properties(), **APACHE_ONLY, "haListenPort": str(self._ha_port)}
        del properties["namesrvAddr"]
        config = write_properties(self._home / "apache.properties", properties)
        main_class = "org.apache.rocketmq.broker.BrokerStartup"
        process = start_apache(name, main_class, ["-c", os.fspath(config)], home=self._home, log_directory=self._logs)
        process.wait_line(is_apache_booted, APACHE_START_TIMEOUT_S, "that it booted")
        return process
