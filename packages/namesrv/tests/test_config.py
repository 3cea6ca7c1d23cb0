"""Settings of the name server."""

from pathlib import Path

import pytest
from apogeemq.mesh.config import known_aliases
from apogeemq.mesh.errors import ConfigError
from apogeemq.namesrv.app import PROGRAM
from apogeemq.namesrv.config import IGNORED_PROPERTIES, NamesrvConfig

EXAMPLE = Path(__file__).parents[3] / "deploy" / "namesrv.toml"

# Every property of Apache 5.3.3's NamesrvConfig and NettyServerConfig.
APACHE_PROPERTIES = frozenset(
    {
        "bindAddress",
        "clientRequestThreadPoolNums",
        "clientRequestThreadPoolQueueCapacity",
        "clusterTest",
        "configBlackList",
        "configStorePath",
        "defaultThreadPoolNums",
        "defaultThreadPoolQueueCapacity",
        "deleteTopicWithBrokerRegistration",
        "enableAllTopicList",
        "enableControllerInNamesrv",
        "enableShutdownGracefully",
        "enableTopicList",
        "kvConfigPath",
        "listenPort",
        "needWaitForService",
        "notifyMinBrokerIdChanged",
        "orderMessageEnable",
        "productEnvName",
        "returnOrderTopicConfigToBroker",
        "rocketmqHome",
        "scanNotActiveBrokerInterval",
        "serverAsyncSemaphoreValue",
        "serverCallbackExecutorThreads",
        "serverChannelMaxIdleTimeSeconds",
        "serverNettyWorkerGroupEnable",
        "serverOnewaySemaphoreValue",
        "serverPooledByteBufAllocatorEnable",
        "serverSelectorThreads",
        "serverSocketBacklog",
        "serverSocketRcvBufSize",
        "serverSocketSndBufSize",
        "serverWorkerThreads",
        "shutdownWaitTimeSeconds",
        "supportActingMaster",
        "unRegisterBrokerQueueCapacity",
        "useEpollNativeSelector",
        "waitSecondsForService",
        "writeBufferHighWaterMark",
        "writeBufferLowWaterMark",
    }
)


def test_the_shipped_example_loads_and_shows_the_defaults() -> None:
    """What the documentation says is what the program does."""
    assert PROGRAM.load_config(EXAMPLE).value == NamesrvConfig()


def test_the_shipped_example_has_every_setting_but_addresses_and_paths() -> None:
    """A setting that nobody can find is no setting."""
    loaded = PROGRAM.load_config(EXAMPLE)
    missing = {key for key, origin in loaded.origins.items() if origin == "default"}
    hidden = ("advertised_host", "advertised_port", "enabled", "_path", "http.tls.mode")
    assert {key for key in missing if not key.endswith(hidden)} == set()


def test_apache_property_names_are_understood(tmp_path: Path) -> None:
    """A namesrv.properties written for Apache moves the listener and the waits; thread pools have no effect."""
    file = tmp_path / "namesrv.properties"
    file.write_text(
        "listenPort=19876\nbindAddress=127.0.0.1\nneedWaitForService=true\nwaitSecondsForService=5\n"
        "serverChannelMaxIdleTimeSeconds=60\nserverWorkerThreads=8\n"
    )
    loaded = PROGRAM.load_config(file)
    assert (loaded.value.listeners.remoting.host, loaded.value.listeners.remoting.port) == ("127.0.0.1", 19_876)
    assert loaded.value.registration.need_wait_for_service
    assert loaded.value.registration.wait_for_service_s == 5
    assert loaded.value.limits.idle_timeout_s == 60
    assert loaded.ignored == [f"serverWorkerThreads (file {file}:6)"]


def test_what_is_known_of_apache_is_apaches() -> None:
    """No alias and no ignored name is misspelt or made up."""
    assert set(known_aliases(NamesrvConfig)) | IGNORED_PROPERTIES <= APACHE_PROPERTIES
    assert not set(known_aliases(NamesrvConfig)) & IGNORED_PROPERTIES


@pytest.mark.parametrize("name", ["supportActingMaster", "clusterTest", "deleteTopicWithBrokerRegistration"])
def test_properties_that_clients_would_notice_are_not_ignored(name: str) -> None:
    """Who sets them relies on something that this name server does not do: better an error than a surprise."""
    with pytest.raises(ConfigError, match=name):
        PROGRAM.load_config(flags={name: "true"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listeners.remoting.port", "65536"),
        ("registration.beat_timeout_ms", "1999"),
        ("registration.grace_ms", "-1"),
        ("limits.brokers_max", "0"),
        ("limits.frame_size_bytes_max", "16777217"),
        ("log.level", "LOUD"),
        ("listeners.mesh.prot", "1"),
    ],
)
def test_wrong_settings_are_named(key: str, value: str) -> None:
    """The error says which setting, and where it came from."""
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        PROGRAM.load_config(flags={key: value})


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    """And a flag stronger than both."""
    file = tmp_path / "namesrv.toml"
    file.write_text("[listeners.http]\nport = 1\n")
    environ = {"APOGEEMQ_NAMESRV_LISTENERS_HTTP_PORT": "2"}
    assert PROGRAM.load_config(file, environ).value.listeners.http.port == 2
    assert PROGRAM.load_config(file, environ, flags={"listeners.http.port": "3"}).value.listeners.http.port == 3
