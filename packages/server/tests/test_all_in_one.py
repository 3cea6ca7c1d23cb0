"""Settings of the all-in-one: where each value comes from, and what can't be."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from apogeemq.broker.config import FlushDiskType
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.errors import ConfigError
from apogeemq.server.all_in_one import AllInOneConfig, dial_address

NO_FILES: Mapping[str, Path | None] = {"namesrv": None, "broker": None, "proxy": None}


def load(
    *,
    data: Path = Path("data"),
    free_ports: bool = False,
    files: Mapping[str, Path | None] = NO_FILES,
    environ: Mapping[str, str] | None = None,
    namesrv: Mapping[str, str] | None = None,
    broker: Mapping[str, str] | None = None,
    proxy: Mapping[str, str] | None = None,
) -> AllInOneConfig:
    """Load with what a test needs; `namesrv`, `broker` and `proxy` are settings as after --set."""
    return AllInOneConfig.load(
        data=data,
        free_ports=free_ports,
        files=files,
        environ=environ or {},
        settings={"namesrv": namesrv or {}, "broker": broker or {}, "proxy": proxy or {}},
    )


def test_embedded_defaults() -> None:
    """Loopback on the fixed ports (architecture §3), one directory per service below the data directory."""
    config = load(data=Path("/srv/mq"))
    namesrv, broker = config.namesrv.value.listeners, config.broker.value.listeners
    ports = {"remoting": 9876, "mesh": 9877, "http": 9878}
    assert {name: getattr(namesrv, name).port for name in ports} == ports
    ports = {"remoting": 10911, "mesh": 10921, "http": 10931}
    assert {name: getattr(broker, name).port for name in ports} == ports
    proxy = config.proxy.value.listeners
    ports = {"grpc": 8081, "remoting": 8080, "http": 8082}
    assert {name: getattr(proxy, name).port for name in ports} == ports
    hosts = {getattr(proxy, name).host for name in proxy.__struct_fields__}
    hosts |= {getattr(namesrv, name).host for name in namesrv.__struct_fields__}
    hosts |= {getattr(broker, name).host for name in broker.__struct_fields__}
    assert hosts == {"127.0.0.1"}
    assert config.broker.value.store.path == "/srv/mq/broker"
    assert config.broker.value.identity.broker_name == "broker-a"
    assert not broker.vip.enabled
    assert config.proxy.value.topics.auto_create


def test_free_ports() -> None:
    """Every listener takes what is free, but for those that a setting gives a port."""
    config = load(free_ports=True, broker={"listenPort": "10911"})
    namesrv, broker = config.namesrv.value.listeners, config.broker.value.listeners
    proxy = config.proxy.value.listeners
    assert {listener.port for listener in (proxy.grpc, proxy.remoting, proxy.http)} == {0}
    assert {listener.port for listener in (namesrv.remoting, namesrv.mesh, namesrv.http)} == {0}
    assert {listener.port for listener in (broker.vip, broker.mesh, broker.http)} == {0}
    assert broker.remoting.port == 10911
    assert broker.remoting.host == "127.0.0.1"


def test_each_source_goes_over_the_one_before(tmp_path: Path) -> None:
    """Embedded defaults < file < environment < --set, each with its origin; what nobody set stays embedded."""
    file = tmp_path / "broker.properties"
    file.write_text("brokerName=file\nbrokerClusterName=file\nflushDiskType=SYNC_FLUSH\n")
    environ = {"APOGEEMQ_BROKER_IDENTITY_CLUSTER_NAME": "environment", "APOGEEMQ_BROKER_IDENTITY_BROKER_NAME": "env"}
    config = load(files={**NO_FILES, "broker": file}, environ=environ, broker={"brokerName": "flag"})
    identity = config.broker.value.identity
    assert (identity.broker_name, identity.cluster_name) == ("flag", "environment")
    assert config.broker.value.store.flush_disk_type is FlushDiskType.SYNC_FLUSH
    assert config.broker.value.store.path == str(Path("data") / "broker")
    origins = config.broker.origins
    assert origins["identity.broker_name"] == "flag --set brokerName"
    assert origins["identity.cluster_name"] == "environment APOGEEMQ_BROKER_IDENTITY_CLUSTER_NAME"
    assert origins["store.flush_disk_type"] == f"file {file}:3"
    assert origins["store.path"] == "default"


def test_toml_and_both_services_in_one_go(tmp_path: Path) -> None:
    """Each service has its own file; one service's settings are not the other's."""
    broker = tmp_path / "broker.toml"
    broker.write_text("[topics]\nauto_create_topic_enable = false\n[listeners.remoting]\nhost = '0.0.0.0'\n")
    namesrv = tmp_path / "namesrv.toml"
    namesrv.write_text("[listeners.remoting]\nport = 19876\n")
    config = load(files={**NO_FILES, "namesrv": namesrv, "broker": broker})
    assert config.namesrv.value.listeners.remoting.port == 19876
    assert config.namesrv.value.listeners.remoting.host == "127.0.0.1"
    assert not config.broker.value.topics.auto_create_topic_enable
    assert config.broker.value.listeners.remoting.host == "0.0.0.0"
    assert config.broker.value.listeners.remoting.port == 10911


def test_official_names() -> None:
    """RocketMQ's own property names are taken after --set."""
    config = load(
        broker={"flushDiskType": "SYNC_FLUSH", "autoCreateTopicEnable": "false", "storePathRootDir": "/srv/store"},
        namesrv={"listenPort": "1234"},
    )
    assert config.broker.value.store.flush_disk_type is FlushDiskType.SYNC_FLUSH
    assert not config.broker.value.topics.auto_create_topic_enable
    assert config.broker.value.store.path == "/srv/store"
    assert config.namesrv.value.listeners.remoting.port == 1234


def test_settings_are_listed_as_they_are_set() -> None:
    """Every line of the description can be given after --set: its service in front, its origin behind."""
    lines = load(broker={"brokerName": "b"}).describe()
    assert "namesrv.listeners.remoting.port = 9876  (default)" in lines
    assert "broker.identity.broker_name = b  (flag --set brokerName)" in lines


def test_what_has_no_effect_here_is_told(tmp_path: Path) -> None:
    """Apache's properties without a meaning, the name server that the broker knows anyway, logs of single services."""
    file = tmp_path / "broker.conf"
    file.write_text("fetchNamesrvAddrByAddressServer=false\nbrokerName=b\n")
    config = load(
        files={**NO_FILES, "broker": file},
        environ={"NAMESRV_ADDR": "mq.example:9876"},
        namesrv={"log.level": "DEBUG"},
        proxy={"proxyMode": "CLUSTER"},
    )
    everywhere = [
        f"broker: fetchNamesrvAddrByAddressServer (file {file}:1)",
        "broker: identity.namesrv_addr (environment NAMESRV_ADDR)",
        "proxy: identity.namesrv_addr (environment NAMESRV_ADDR)",
        "proxy: identity.proxy_mode (flag --set proxyMode)",
    ]
    assert config.without_effect() == ["namesrv: log.level (flag --set log.level)", *everywhere]
    assert load().without_effect() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"broker": {"flushDiskTyp": "SYNC_FLUSH"}}, "broker: flushDiskTyp is not known; did you mean flushDiskType?"),
        ({"broker": {"flushDiskType": "NO"}}, "broker: flushDiskType .* is 'NO'; allowed is ASYNC_FLUSH | SYNC_FLUSH"),
        ({"broker": {"listenPort": "70000"}}, r"broker: listenPort \(listeners\.remoting\.port\) is '70000'"),
        ({"namesrv": {"limits.brokers_max": "0"}}, r"namesrv: limits\.brokers_max is '0'; allowed is .* from 1"),
        ({"namesrv": {"listeners.mesh.enabled": "false"}}, r"namesrv: listeners\.mesh\.enabled is false, but"),
        ({"broker": {"listeners.http.tls.mode": "enforcing"}}, r"broker: listeners\.http\.tls mode enforcing needs"),
    ],
)
def test_wrong_settings_name_service_and_key(settings: Mapping[str, Mapping[str, str]], message: str) -> None:
    """An error says whose setting is wrong, which one, and what would do."""
    with pytest.raises(ConfigError, match=message):
        load(namesrv=settings.get("namesrv"), broker=settings.get("broker"))


def test_a_name_server_that_demands_tls_is_refused(tmp_path: Path) -> None:
    """The broker in the same process could never register with it, and would be found by nobody."""
    pem = tmp_path / "any.pem"
    pem.write_text("")
    tls = {"mode": "enforcing", "cert_path": str(pem), "key_path": str(pem)}
    with pytest.raises(ConfigError, match=r"namesrv: listeners\.mesh\.tls\.mode is enforcing"):
        load(namesrv={f"listeners.mesh.tls.{key}": value for key, value in tls.items()})


@pytest.mark.parametrize(
    ("listener", "advertised", "expected"),
    [
        (ListenerConfig(host="127.0.0.1", port=0), "127.0.0.1:41234", "127.0.0.1:41234"),
        (ListenerConfig(host="0.0.0.0", port=9877), "10.1.2.3:9877", "127.0.0.1:9877"),
        (ListenerConfig(host="::", port=0), "10.1.2.3:41234", "127.0.0.1:41234"),
        (ListenerConfig(host="::1", port=9877), "[::1]:9877", "[::1]:9877"),
        (ListenerConfig(host="10.1.2.3", port=9877, advertised_host="mq.example"), "mq.example:9877", "10.1.2.3:9877"),
        (ListenerConfig(host="0.0.0.0", port=9877, advertised_port=443), "10.1.2.3:443", "127.0.0.1:9877"),
    ],
)
def test_the_broker_dials_where_the_name_server_is_bound(
    listener: ListenerConfig, advertised: str, expected: str
) -> None:
    """What outsiders are told may lead through NAT or a proxy that this process can't use."""
    assert dial_address(listener, advertised) == expected
