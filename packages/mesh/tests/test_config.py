"""Settings: precedence, names, conversion, errors, and what is shown."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from apogeemq.mesh.config import (
    Alias,
    ConfigError,
    ListenerConfig,
    Loaded,
    TlsConfig,
    known_aliases,
    load,
    setting,
)


class FlushDiskType(enum.Enum):
    ASYNC_FLUSH = "ASYNC_FLUSH"
    SYNC_FLUSH = "SYNC_FLUSH"


def _hours(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("a whole number of hours")
    return int(text) * 3_600


class Store(msgspec.Struct, frozen=True, kw_only=True):
    root_dir: Annotated[str, setting("storePathRootDir")] = "~/store"
    flush: Annotated[FlushDiskType, setting("flushDiskType")] = FlushDiskType.ASYNC_FLUSH
    retention_s: Annotated[int, msgspec.Meta(ge=3_600), setting(Alias("fileReservedTime", _hours))] = 259_200
    disk_ratio_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    mode: Literal["fast", "safe"] = "fast"

    def validate(self) -> None:
        if self.mode == "safe" and self.flush is FlushDiskType.ASYNC_FLUSH:
            raise ValueError("mode safe needs flush SYNC_FLUSH")


class Listeners(msgspec.Struct, frozen=True, kw_only=True):
    remoting: ListenerConfig = ListenerConfig(port=10911)
    mesh: ListenerConfig = ListenerConfig(port=10921, host="127.0.0.1")


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1), setting("brokerName")]
    broker_id: Annotated[int, msgspec.Meta(ge=0), setting("brokerId")] = 0
    namesrv_addresses: Annotated[tuple[str, ...], setting("namesrvAddr", environment=("NAMESRV_ADDR",))] = ()
    auto_create: bool = True
    secret_key: Annotated[str, setting("secretKey", secret=True)] = ""
    region: str | None = None
    listeners: Annotated[
        Listeners,
        setting(
            inside={
                "listenPort": "remoting.port",
                "bindAddress": "remoting.host",
                "brokerIP1": "remoting.advertised_host",
            }
        ),
    ] = Listeners()
    store: Store = Store()


PREFIX = "APOGEEMQ_BROKER_"


def load_broker(
    flags: dict[str, str] | None = None,
    *,
    file: Path | None = None,
    environ: dict[str, str] | None = None,
    ignored: tuple[str, ...] = (),
) -> Loaded[Broker]:
    """Load with the one required setting given."""
    flags = {"name": "a"} | (flags or {})
    return load(Broker, file=file, environ=environ, prefix=PREFIX, flags=flags, ignored=ignored)


def properties(directory: Path, text: str) -> Path:
    file = directory / "broker.conf"
    file.write_text(text)
    return file


def test_defaults_come_from_the_outermost_section_that_gives_one() -> None:
    """Without any source a value is its default, also where an outer section gives an inner one other defaults."""
    loaded = load_broker()
    assert loaded.value.listeners.remoting == ListenerConfig(port=10911)
    assert loaded.value.listeners.mesh.host == "127.0.0.1"
    assert loaded.origins["listeners.mesh.host"] == "default"


def test_defaults_of_whoever_embeds() -> None:
    """Defaults handed in stand in for the struct's own, and yield to every source."""
    defaults = Broker(name="embedded", broker_id=7, listeners=Listeners(remoting=ListenerConfig(port=0)))
    value = load(Broker, flags={"broker_id": "8"}, defaults=defaults).value
    assert (value.name, value.broker_id, value.listeners.remoting.port) == ("embedded", 8, 0)
    assert value.listeners.mesh == Listeners().mesh


def test_precedence_is_default_file_environment_flags(tmp_path: Path) -> None:
    """Each source wins over the one before, setting by setting, and the origin says which it was."""
    file = properties(tmp_path, "brokerId=1\nstorePathRootDir=/file\nstore.mode=fast\n")
    environ = {"APOGEEMQ_BROKER_STORE_ROOT_DIR": "/env", "APOGEEMQ_BROKER_STORE_MODE": "fast"}
    loaded = load_broker({"store.mode": "safe", "store.flush": "SYNC_FLUSH"}, file=file, environ=environ)
    assert (loaded.value.broker_id, loaded.value.store.root_dir, loaded.value.store.mode) == (1, "/env", "safe")
    assert [loaded.origins[key] for key in ("broker_id", "store.root_dir", "store.mode", "auto_create")] == [
        f"file {file}:1",
        "environment APOGEEMQ_BROKER_STORE_ROOT_DIR",
        "flag --set store.mode",
        "default",
    ]


def test_part_of_a_section_keeps_the_rest_of_its_defaults() -> None:
    """Setting one value of a section whose default is given outside keeps that default's other values."""
    loaded = load_broker({"listeners.mesh.port": "0"})
    assert loaded.value.listeners.mesh == ListenerConfig(port=0, host="127.0.0.1")


def test_toml_sections(tmp_path: Path) -> None:
    """TOML tables are sections; its own types need no text conversion, text is converted like anywhere else."""
    file = tmp_path / "broker.toml"
    file.write_text(
        'namesrv_addresses = ["a:1", "b:2"]\nauto_create = false\nbrokerId = "3"\n[listeners.remoting]\nport = 1\n'
    )
    value = load_broker(file=file).value
    assert (value.namesrv_addresses, value.auto_create, value.broker_id) == (("a:1", "b:2"), False, 3)
    assert value.listeners.remoting.port == 1


def test_official_property_names(tmp_path: Path) -> None:
    """A RocketMQ broker.conf loads by its own names, also those that lie deep in our sections."""
    file = properties(
        tmp_path,
        "brokerName = broker-a\nbrokerId = 0\nnamesrvAddr = n1:9876;n2:9876\nlistenPort = 10999\n"
        "brokerIP1 = mq.example\nflushDiskType = SYNC_FLUSH\nfileReservedTime = 48\n",
    )
    value = load(Broker, file=file).value
    assert value.name == "broker-a"
    assert value.namesrv_addresses == ("n1:9876", "n2:9876")
    assert (value.listeners.remoting.port, value.listeners.remoting.advertised_host) == (10999, "mq.example")
    assert (value.store.flush, value.store.retention_s) == (FlushDiskType.SYNC_FLUSH, 48 * 3600)


def test_known_aliases() -> None:
    """All RocketMQ names can be listed with our keys."""
    assert known_aliases(Broker) == {
        "brokerName": "name",
        "brokerId": "broker_id",
        "namesrvAddr": "namesrv_addresses",
        "secretKey": "secret_key",
        "listenPort": "listeners.remoting.port",
        "bindAddress": "listeners.remoting.host",
        "brokerIP1": "listeners.remoting.advertised_host",
        "storePathRootDir": "store.root_dir",
        "flushDiskType": "store.flush",
        "fileReservedTime": "store.retention_s",
    }


def test_variable_of_its_own_name_yields_to_the_prefixed_one() -> None:
    """NAMESRV_ADDR is honoured as in Java; ours wins over it, and an empty one is as if unset."""
    official = {"NAMESRV_ADDR": "n1:9876"}
    assert load_broker(environ=official).value.namesrv_addresses == ("n1:9876",)
    both = official | {"APOGEEMQ_BROKER_NAMESRV_ADDRESSES": "n2:9876"}
    assert load_broker(environ=both).value.namesrv_addresses == ("n2:9876",)
    assert load_broker(environ={"NAMESRV_ADDR": ""}).origins["namesrv_addresses"] == "default"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("auto_create", "false", False),
        ("auto_create", "TRUE", True),
        ("store.disk_ratio_max", "0.75", 0.75),
        ("store.disk_ratio_max", "1", 1.0),
        ("region", "", None),
        ("region", "eu", "eu"),
        ("namesrv_addresses", " a:1 , b:2;", ("a:1", "b:2")),
        ("namesrv_addresses", "", ()),
    ],
)
def test_text_becomes_values(key: str, text: str, value: object) -> None:
    """Booleans, numbers, optional texts and lists are read from text."""
    section: object = load_broker({key: text}).value
    for name in key.split("."):
        section = getattr(section, name)
    assert section == value


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("listeners.remoting.port", "70000", "is '70000'; allowed is a whole number from 0 to 65535"),
        ("listenPort", "x", r"listenPort \(listeners.remoting.port\) is 'x'; allowed is a whole number"),
        ("store.disk_ratio_max", "0", "allowed is a number above 0 to 1"),
        ("store.mode", "slow", r"allowed is fast \| safe"),
        ("flushDiskType", "NEVER", r"allowed is ASYNC_FLUSH \| SYNC_FLUSH"),
        ("auto_create", "yes", r"allowed is true \| false"),
        ("name", "", "allowed is text of at least 1 characters"),
        ("fileReservedTime", "soon", "is 'soon': a whole number of hours"),
        ("fileReservedTime", "0", "is '0'; allowed is a whole number from 3600"),
    ],
)
def test_wrong_value_names_what_is_allowed(key: str, text: str, message: str) -> None:
    """An unusable value is shown with its setting, origin and what is allowed."""
    with pytest.raises(ConfigError, match=message) as caught:
        load(Broker, flags={key: text})
    assert caught.value.origin == f"flag --set {key}"


def test_wrong_value_in_a_file_names_the_line(tmp_path: Path) -> None:
    """The origin of a properties value has the line number."""
    file = properties(tmp_path, "\n\nbrokerId = -1\n")
    with pytest.raises(ConfigError, match=rf"brokerId \(broker_id\) is '-1'.* \[file {file}:3\]"):
        load(Broker, file=file)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("listenport", "listenPort"),
        ("listeners.remotng.port", "listeners.remoting.port"),
        ("storePathRoot", "storePathRootDir"),
        ("root_dir", "store.root_dir"),
        ("zzzz", None),
    ],
)
def test_unknown_name_names_the_nearest(key: str, nearest: str | None) -> None:
    """A name that nobody knows is an error; the most similar one is offered, whatever the case."""
    with pytest.raises(ConfigError, match="is not known") as caught:
        load_broker({key: "1"})
    assert (caught.value.key, caught.value.nearest) == (key, nearest)


def test_unknown_variable_with_the_prefix() -> None:
    """A misspelt variable is an error too, and the nearest variable is offered."""
    with pytest.raises(ConfigError) as caught:
        load_broker(environ={"APOGEEMQ_BROKER_LISTENERS_REMOTING_PRT": "1"})
    assert caught.value.nearest == "APOGEEMQ_BROKER_LISTENERS_REMOTING_PORT"


def test_names_without_effect_are_accepted_and_listed(tmp_path: Path) -> None:
    """RocketMQ properties that have no meaning here can be let through, and are told."""
    file = properties(tmp_path, "sendMessageThreadPoolNums=4\n")
    loaded = load_broker(file=file, ignored=("sendMessageThreadPoolNums", "never"))
    assert loaded.ignored == [f"sendMessageThreadPoolNums (file {file}:1)"]


def test_two_names_of_one_setting_in_one_file_are_refused(tmp_path: Path) -> None:
    """An alias and its key in the same file contradict each other; the same name twice lets the last win, as Java."""
    file = properties(tmp_path, "listenPort=1\nlisteners.remoting.port=2\n")
    with pytest.raises(ConfigError, match=r"means the same as listenPort; file .*:1 \[file .*:2\]"):
        load_broker(file=file)
    assert load_broker(file=properties(tmp_path, "brokerId=1\nbrokerId=2\n")).value.broker_id == 2


def test_setting_without_default_must_be_set() -> None:
    """A required setting that no source gives is named."""
    with pytest.raises(ConfigError, match="name must be set"):
        load(Broker)


def test_values_that_do_not_go_together() -> None:
    """validate() of a section is called, and its error carries the section's key."""
    with pytest.raises(ConfigError, match="store mode safe needs flush SYNC_FLUSH"):
        load_broker({"store.mode": "safe"})


def test_secrets_are_masked() -> None:
    """A secret shows neither in the description nor in an error about it."""
    loaded = load_broker({"secret_key": "hunter2"})
    assert "secret_key = ******  (flag --set secret_key)" in loaded.describe()
    assert loaded.secret_values() == ["hunter2"]
    assert "secret_key =   (default)" in load_broker().describe()
    assert load_broker().secret_values() == []

    class Pin(msgspec.Struct, frozen=True):
        pin: Annotated[int, setting(secret=True)] = 0

    with pytest.raises(ConfigError) as caught:
        load(Pin, flags={"pin": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_description_can_be_read_back(tmp_path: Path) -> None:
    """What describe() shows, written as a properties file, loads to the same settings."""
    first = load_broker(
        {"namesrv_addresses": "a:1;b:2", "auto_create": "false", "store.retention_s": "7200", "region": "eu"}
    )
    lines = [line.rpartition("  (")[0] for line in first.describe()]
    second = load(Broker, file=properties(tmp_path, "\n".join(lines)))
    assert second.value == first.value


def test_tls_section_checks_its_files(tmp_path: Path) -> None:
    """TLS that is on needs certificate and key, and the files must be there."""
    with pytest.raises(ConfigError, match=r"listeners.remoting.tls mode enforcing needs cert_path and key_path"):
        load_broker({"listeners.remoting.tls.mode": "enforcing"})
    with pytest.raises(ValueError, match="there is no file"):
        TlsConfig(mode="permissive", cert_path=str(tmp_path / "no.pem"), key_path=str(tmp_path / "no.key")).validate()


def test_changes_handed_over_make_the_same_settings(tmp_path: Path) -> None:
    """What differs from the defaults, as text and keyed for the environment or --set, loads to equal settings."""
    file = tmp_path / "broker.properties"
    file.write_text("brokerName=b\nnamesrvAddr=a:1;b:2\nsecretKey=s3cret\nautoCreateTopicEnable=false\n")
    first = load(
        Broker, file=file, flags={"listeners.mesh.port": "0", "region": "r"}, ignored={"autoCreateTopicEnable"}
    )
    changes = first.changes()
    assert changes == {
        "name": "b",
        "namesrv_addresses": "a:1;b:2",
        "secret_key": "s3cret",
        "region": "r",
        "listeners.mesh.port": "0",
    }
    assert load(Broker, flags=changes).value == first.value


def test_a_value_set_to_its_default_is_no_change() -> None:
    """Only what differs is handed over; a required setting always is."""
    assert load(Broker, flags={"name": "b", "listeners.remoting.port": "10911"}).changes() == {"name": "b"}
