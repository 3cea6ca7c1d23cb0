"""Settings of a broker: names, sources, and what is refused."""

from pathlib import Path

import pytest
from apogeemq.broker.app import PROGRAM
from apogeemq.broker.config import IGNORED_PROPERTIES, BrokerConfig, FlushDiskType, StoreSettings
from apogeemq.mesh.config import known_aliases
from apogeemq.mesh.errors import ConfigError
from apogeemq.store.disk_space import DiskLimits
from apogeemq.store.retention import RetentionConfig

from packages.broker.tests.recordings import VECTORS

DEPLOY = Path(__file__).parents[3] / "deploy"
APACHE_PROPERTIES = frozenset((VECTORS / "apache_properties.txt").read_text(encoding="utf-8").split())

FOLKLORE = frozenset({"abortFile", "storeCheckpoint", "storePathConsumeQueue", "storePathIndex"})
"""In many configurations that are handed around, though no class of Apache's reads them."""


def test_the_shipped_toml_shows_the_defaults() -> None:
    """What the example says is what the program does without it."""
    assert PROGRAM.load_config(DEPLOY / "broker.toml").value == BrokerConfig()


def test_the_shipped_toml_has_every_setting_but_addresses_and_paths() -> None:
    """A setting that nobody can find is no setting."""
    loaded = PROGRAM.load_config(DEPLOY / "broker.toml")
    missing = {key for key, origin in loaded.origins.items() if origin == "default"}
    hidden = ("advertised_host", "advertised_port", "_path", "enabled")
    assert {key for key in missing if not key.endswith(hidden) and not key.startswith("listeners.vip")} == set()


def test_the_shipped_properties_are_apaches() -> None:
    """broker.conf has official names only; those without meaning here are accepted and told."""
    file = DEPLOY / "broker.conf"
    loaded = PROGRAM.load_config(file)
    lines = [line.split("=", 1)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    names = {name for name in lines if name and not name.startswith("#")}
    assert names <= APACHE_PROPERTIES
    assert {line.partition(" ")[0] for line in loaded.ignored} == names & IGNORED_PROPERTIES
    assert loaded.value.identity.broker_name == "broker-a"


def test_what_is_known_of_apache_is_apaches() -> None:
    """No alias and no ignored name is misspelt or made up, and none is both."""
    assert set(known_aliases(BrokerConfig)) <= APACHE_PROPERTIES
    assert IGNORED_PROPERTIES <= APACHE_PROPERTIES | FOLKLORE
    assert not set(known_aliases(BrokerConfig)) & IGNORED_PROPERTIES


def test_an_official_configuration_sets_what_it_says(tmp_path: Path) -> None:
    """Java properties, as they are written for Apache's broker."""
    file = tmp_path / "broker.conf"
    file.write_text(
        "brokerClusterName = C\nbrokerName=b\nbrokerId=0\ndeleteWhen=04\nfileReservedTime=48\n"
        "brokerRole=ASYNC_MASTER\nrocketmqHome=/opt/mq\nflushDiskType=SYNC_FLUSH\nlistenPort=20911\nbrokerIP1=broker.example\n"
        "namesrvAddr=10.0.0.1:9877;10.0.0.2:9877\nautoCreateTopicEnable=false\nmaxMessageSize=1000\n"
        "messageDelayLevel=1s 2s\nstorePathRootDir=/data\n"
    )
    loaded = PROGRAM.load_config(file)
    config = loaded.value
    assert (config.identity.cluster_name, config.identity.broker_name) == ("C", "b")
    assert config.identity.namesrv_addr == "10.0.0.1:9877;10.0.0.2:9877"
    assert (config.listeners.remoting.port, config.listeners.remoting.advertised_host) == (20911, "broker.example")
    assert config.store.flush_disk_type is FlushDiskType.SYNC_FLUSH
    assert (config.store.path, config.store.max_message_size_bytes) == ("/data", 1000)
    assert config.store.message_delay_level == "1s 2s"
    assert not config.topics.auto_create_topic_enable
    assert [line.partition(" ")[0] for line in loaded.ignored] == ["rocketmqHome"]
    assert config.store.retention.delete_when == {4}
    assert config.store.retention.file_reserved_ms == 48 * 3_600_000


def test_apaches_names_for_what_is_deleted_when() -> None:
    """Hours, per cent and milliseconds become what the store counts in."""
    flags = {
        "deleteWhen": "02;14",
        "fileReservedTime": "24",
        "diskMaxUsedSpaceRatio": "60",
        "diskSpaceCleanForciblyRatio": "70",
        "diskSpaceWarningLevelRatio": "80",
        "cleanFileForciblyEnable": "false",
        "deleteFileBatchMax": "3",
        "cleanResourceInterval": "5000",
        "store.commit_log_size_bytes_max": "1000",
        "store.disk_warn_free_bytes": "200",
        "store.disk_refuse_free_bytes": "100",
    }
    settings = PROGRAM.load_config(flags=flags).value.store
    assert settings.retention == RetentionConfig(
        delete_when=frozenset({2, 14}),
        file_reserved_ms=86_400_000,
        disk_max_used_ratio=0.6,
        disk_clean_forcibly_ratio=0.7,
        clean_file_forcibly=False,
        log_size_bytes_max=1000,
        delete_file_batch_max=3,
        round_interval_ms=5000,
    )
    assert settings.disk_limits == DiskLimits(
        warn_used_ratio=0.7, refuse_used_ratio=0.8, warn_free_bytes=200, refuse_free_bytes=100
    )


def test_apaches_defaults_for_what_is_deleted_when() -> None:
    """As in reference config_keys.tsv: 04, 72 h, 75, 85 and 90 per cent."""
    settings = StoreSettings()
    assert settings.retention == RetentionConfig()
    assert (settings.disk_limits.warn_used_ratio, settings.disk_limits.refuse_used_ratio) == (0.85, 0.9)


def test_toml_has_sections(tmp_path: Path) -> None:
    """With our own names."""
    file = tmp_path / "broker.toml"
    file.write_text('[identity]\nbroker_name = "b"\n[listeners.vip]\nenabled = true\n[limits]\npull_hold_s_max = 5.5\n')
    config = PROGRAM.load_config(file).value
    assert config.identity.broker_name == "b"
    assert config.listeners.vip.enabled
    assert config.limits.pull_hold_s_max == 5.5


def test_later_sources_win(tmp_path: Path) -> None:
    """Defaults < file < environment < flags; each value says where it came from."""
    file = tmp_path / "broker.conf"
    file.write_text("brokerName=file\nregionId=file\nbrokerClusterName=file\n")
    environment = {"APOGEEMQ_BROKER_IDENTITY_REGION_ID": "env", "APOGEEMQ_BROKER_IDENTITY_CLUSTER_NAME": "env"}
    loaded = PROGRAM.load_config(file, environment, {"brokerClusterName": "flag"})
    identity = loaded.value.identity
    assert (identity.broker_name, identity.region_id, identity.cluster_name) == ("file", "env", "flag")
    assert loaded.origins["identity.namesrv_addr"] == "default"
    assert str(file) in loaded.origins["identity.broker_name"]


def test_namesrv_addr_of_the_environment_counts() -> None:
    """RocketMQ's own variable; ours is stronger, and so is a flag."""
    environment = {"NAMESRV_ADDR": "a:1"}
    assert PROGRAM.load_config(environ=environment).value.identity.namesrv_addr == "a:1"
    ours = environment | {"APOGEEMQ_BROKER_IDENTITY_NAMESRV_ADDR": "b:1"}
    assert PROGRAM.load_config(environ=ours).value.identity.namesrv_addr == "b:1"
    assert PROGRAM.load_config(environ=ours, flags={"namesrvAddr": "c:1"}).value.identity.namesrv_addr == "c:1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("identity.broker_id", "1"),
        ("identity.broker_permission", "5"),
        ("identity.cluster_name", ""),
        ("identity.cluster_name", "two words"),
        ("identity.broker_name", "a b"),
        ("identity.broker_name", "../a"),
        ("identity.region_id", "a\x02b"),
        ("listeners.remoting.port", "65536"),
        ("topics.default_topic_queue_nums", "0"),
        ("topics.default_topic_queue_nums", "16385"),
        ("store.path", ""),
        ("store.flush_disk_type", "NEVER"),
        ("store.message_delay_level", "1s 2x"),
        ("store.message_delay_level", ""),
        ("store.consume_queue_file_size_bytes", "30"),
        ("store.consume_queue_file_size_bytes", "0"),
        ("store.commit_log_file_size_bytes", "5000"),
        ("store.commit_log_file_size_bytes", "0"),
        ("store.hot_window_bytes", "-1"),
        ("store.sync_flush_timeout_ms", "0"),
        ("store.delete_when", "24"),
        ("store.file_reserved_time_hours", "0"),
        ("store.disk_max_used_space_percent", "0"),
        ("store.disk_space_clean_forcibly_percent", "101"),
        ("store.disk_space_warning_level_percent", "0"),
        ("store.disk_warn_free_bytes", "-1"),
        ("store.disk_refuse_free_bytes", "-1"),
        ("store.commit_log_size_bytes_max", "-1"),
        ("store.delete_file_batch_max", "0"),
        ("store.clean_resource_interval_ms", "0"),
        ("store.flush_interval_ms", "0"),
        ("store.max_message_size_bytes", "0"),
        ("store.max_message_size_bytes", str(16 << 20)),
        ("store.flush_consumer_offset_interval_ms", "0"),
        ("store.flush_delay_offset_interval_ms", "-5"),
        ("limits.frame_size_bytes_max", str((16 << 20) + 1)),
        ("limits.topics_max", "50001"),
        ("limits.groups_max", "100001"),
        *((f"limits.{name}", "0") for name in BrokerConfig().limits.__struct_fields__),
    ],
)
def test_wrong_settings_are_named(key: str, value: str) -> None:
    """The error says which setting, before anything is started."""
    name = key.rpartition(".")[2]
    with pytest.raises(ConfigError, match=f"{name}|delay level"):
        PROGRAM.load_config(flags={key: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"listeners.remoting.enabled": "false", "listeners.mesh.enabled": "false"},
        {"listeners.remoting.enabled": "false", "listeners.vip.enabled": "true"},
    ],
)
def test_listeners_that_do_not_go_together_are_refused(settings: dict[str, str]) -> None:
    """A broker that nobody could reach, and a second port of a listener that is off."""
    with pytest.raises(ConfigError, match=r"remoting\.enabled"):
        PROGRAM.load_config(flags=settings)


def test_a_broker_may_serve_proxies_only() -> None:
    """Its clients then use gRPC, or Remoting through a proxy."""
    assert not PROGRAM.load_config(flags={"listeners.remoting.enabled": "false"}).value.listeners.remoting.enabled


def test_a_misspelt_setting_is_told_with_the_nearest_one() -> None:
    """It never stays at its default unnoticed."""
    with pytest.raises(ConfigError, match="autoCreateTopicEnable"):
        PROGRAM.load_config(flags={"autoCreateTopicEnabled": "true"})


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"brokerRole": "SLAVE"}, "set broker_id to 1"),
        ({"brokerId": "7"}, "set broker_role to SLAVE, or broker_id to 0"),
        ({"brokerRole": "SYNC_MASTER", "brokerId": "1"}, "set broker_role to SLAVE, or broker_id to 0"),
        ({"brokerRole": "SLAVE", "brokerId": "-1"}, "1 and up for a slave"),
        ({"brokerRole": "SYNC_MASTER", "enableControllerMode": "true"}, "leave ASYNC_MASTER"),
        ({"brokerRole": "SLAVE", "brokerId": "1", "namesrvAddr": ""}, "set namesrv_addr"),
        ({"brokerRole": "SYNC_MASTER", "listeners.mesh.enabled": "false"}, "listeners.mesh.enabled"),
        ({"brokerRole": "SYNC_MASTER", "haMaxGapNotInSync": "0"}, "greater than 0"),
    ],
)
def test_roles_that_cannot_be_are_refused(settings: dict[str, str], advice: str) -> None:
    """With what to set instead."""
    with pytest.raises(ConfigError, match=advice):
        PROGRAM.load_config(flags=settings)


@pytest.mark.parametrize(
    ("settings", "is_static"),
    [
        ({"brokerRole": "ASYNC_MASTER"}, False),
        ({"replication.has_slaves": "true"}, True),
        ({"brokerRole": "SYNC_MASTER"}, True),
        ({"brokerRole": "SLAVE", "brokerId": "2"}, True),
        ({"enableControllerMode": "true", "replication.has_slaves": "true"}, False),
    ],
)
def test_roles_without_controllers(settings: dict[str, str], is_static: bool) -> None:
    """A master by itself has nothing to do with replicas; the other roles have, unless controllers decide."""
    assert PROGRAM.load_config(flags=settings).value.is_static is is_static


@pytest.mark.parametrize("name", sorted(IGNORED_PROPERTIES))
def test_what_has_no_effect_is_said(name: str) -> None:
    """It loads, and the log will tell."""
    (told,) = PROGRAM.load_config(flags={name: "x"}).ignored
    assert told.startswith(name)
