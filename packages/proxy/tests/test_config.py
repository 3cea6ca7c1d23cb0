"""A proxy's settings: names, aliases, ranges, and what does not go together."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apogeemq.mesh.config import known_aliases
from apogeemq.mesh.errors import ConfigError
from apogeemq.proxy.app import PROGRAM
from apogeemq.proxy.config import IGNORED_PROPERTIES, ProxyConfig, ProxyMode

EXAMPLE = Path(__file__).parents[3] / "deploy" / "proxy.toml"


def loaded(**flags: str) -> ProxyConfig:
    """Settings with these flags, `__` for a dot."""
    return PROGRAM.load_config(flags={key.replace("__", "."): value for key, value in flags.items()}).value


def test_the_ports_are_apaches() -> None:
    """8080 for Remoting, 8081 for gRPC; health and metrics on loopback at 8082."""
    listeners = ProxyConfig().listeners
    assert (listeners.remoting.port, listeners.grpc.port, listeners.http.port) == (8080, 8081, 8082)
    assert listeners.http.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("rocketMQClusterName", "C", "identity.cluster_name", "C"),
        ("namesrvAddr", "a:1;b:2", "identity.namesrv_addr", "a:1;b:2"),
        ("proxyMode", "LOCAL", "identity.proxy_mode", "LOCAL"),
        ("grpcServerPort", "9", "listeners.grpc.port", 9),
        ("remotingListenPort", "9", "listeners.remoting.port", 9),
        ("grpcMaxInboundMessageSize", "9000000", "limits.request_size_bytes_max", 9_000_000),
        ("maxMessageSize", "1000", "limits.body_size_bytes_max", 1000),
    ],
)
def test_apaches_names(name: str, value: str, key: str, expected: object) -> None:
    """Properties of Apache's ProxyConfig mean what they mean there."""
    value_: Any = msgspec.to_builtins(PROGRAM.load_config(flags={name: value}).value)
    for part in key.split("."):
        value_ = value_[part]
    assert value_ == expected


def test_properties_without_meaning_load(tmp_path: Path) -> None:
    """Those that tune Apache's threads are reported and otherwise ignored; none of them has a meaning too."""
    file = tmp_path / "proxy.properties"
    file.write_text("grpcBossLoopNum=4\nproxyName=p\n")
    result = PROGRAM.load_config(file)
    assert len(result.ignored) == 2
    assert not IGNORED_PROPERTIES & set(known_aliases(ProxyConfig))


def test_the_environment_names_the_name_servers() -> None:
    """NAMESRV_ADDR, as everywhere; a list has semicolons, and commas are taken for them."""
    config = PROGRAM.load_config(environ={"NAMESRV_ADDR": "a:1; b:2,c:3"}).value
    assert config.identity.namesrvs == ["a:1", "b:2", "c:3"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"identity__namesrv_addr": " ; "}, ["namesrv_addr"]),
        ({"identity__cluster_name": ""}, ["cluster_name"]),
        ({"brokerTransport": "remoting"}, ["brokerTransport", "not served yet"]),
        ({"identity__workers": "2"}, ["workers", "1"]),
        ({"identity__workers": "2", "proxyMode": "LOCAL"}, ["workers", "LOCAL"]),
        ({"identity__workers": "0"}, ["workers"]),
        ({"brokerConfigPath": "/x"}, ["broker_config", "LOCAL"]),
        ({"brokerConfigPath": "/no/such", "proxyMode": "LOCAL"}, ["broker_config", "/no/such"]),
        ({"proxyMode": "BOTH"}, ["proxyMode"]),
        ({"listeners__grpc__enabled": "false", "listeners__remoting__enabled": "false"}, ["enabled"]),
        ({"limits__body_size_bytes_max": "4194305"}, ["body_size_bytes_max"]),
        ({"limits__request_size_bytes_max": "4194304"}, ["body_size_bytes_max", "request_size_bytes_max"]),
        ({"topics__auto_create_queue_nums": "16385"}, ["auto_create_queue_nums"]),
        ({"limits__idle_s": "0"}, ["idle_s"]),
        ({"grpcServerPortt": "1"}, ["grpcServerPortt", "grpcServerPort"]),
    ],
)
def test_what_cannot_be(flags: dict[str, str], words: list[str]) -> None:
    """Each error names the setting, and what is wrong with it."""
    with pytest.raises(ConfigError) as raised:
        loaded(**flags)
    for word in words:
        assert word in str(raised.value)


def test_local_mode_takes_a_brokers_settings(tmp_path: Path) -> None:
    """With proxyMode=LOCAL a file for the broker may be named."""
    file = tmp_path / "broker.conf"
    file.write_text("")
    config = loaded(proxyMode="LOCAL", brokerConfigPath=str(file))
    assert config.identity.proxy_mode is ProxyMode.LOCAL
    assert config.identity.broker_config == str(file)


def test_the_example_shows_the_defaults() -> None:
    """Every value in deploy/proxy.toml is the default, as its first lines say, and every section is there."""
    shown = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    defaults: Any = msgspec.to_builtins(ProxyConfig())
    assert shown.keys() == defaults.keys()
    assert differences(shown, defaults) == []


def differences(shown: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings whose shown value is not the default."""
    found = []
    for key, value in shown.items():
        if isinstance(value, dict):
            found += differences(value, defaults[key], f"{prefix}{key}.")
        elif value != defaults[key]:
            found.append(f"{prefix}{key}")
    return found
