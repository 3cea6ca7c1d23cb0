"""The route of a topic: which brokers have how many queues of it, and where they are.

The route of a topic (GET_ROUTEINFO_BY_TOPIC) is written in fastjson's own form to clients before version 401 and in
standard JSON to the others (`encode(standard=True)`); no other body ever is.
Source: remoting.md §8, json_bodies.tsv (Apache remoting/protocol/route and statictopic).
"""

import msgspec
from apogeemq.remoting_codec.fastjson import JsonBody

MASTER_ID = 0
"""Broker id of a master, as clients see it. Producers send only where this id has an address."""

STANDARD_JSON_VERSION_MIN = 401
"""Clients from V4_9_4 on get their route in standard JSON (others by asking: ext field acceptStandardJsonOnly)."""


class QueueData(JsonBody, frozen=True, kw_only=True):
    """How many queues one broker has for a topic. `perm`: 4 read, 2 write, 1 inherit, added up."""

    broker_name: str
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int = 0


class BrokerData(JsonBody, frozen=True, kw_only=True):
    """The brokers of one broker name: `broker_addrs` is broker id → "host:port"."""

    cluster: str | None = None
    broker_name: str
    broker_addrs: dict[int, str]
    zone_name: str | None = None
    enable_acting_master: bool = False


class LogicQueueMappingItem(JsonBody, frozen=True, kw_only=True):
    """One stretch of a logical queue of a static topic: which broker's queue holds it, from which logical offset on."""

    gen: int = 0
    queue_id: int = 0
    bname: str | None = None
    logic_offset: int = 0
    start_offset: int = 0
    end_offset: int = -1
    time_of_start: int = -1
    time_of_end: int = -1


class TopicQueueMappingInfo(JsonBody, frozen=True, kw_only=True):
    """A static topic's mapping on one broker, as told to others: `curr_id_map` is logical → physical queue id."""

    topic: str | None = None
    scope: str | None = "__global__"
    total_queues: int = 0
    bname: str | None = None
    epoch: int = 0
    dirty: bool = False
    curr_id_map: dict[int, int] = msgspec.field(default_factory=dict)


class TopicQueueMappingDetail(TopicQueueMappingInfo, frozen=True, kw_only=True):
    """The same with the history of every hosted logical queue."""

    hosted_queues: dict[int, list[LogicQueueMappingItem]] = msgspec.field(default_factory=dict)


class TopicRouteData(JsonBody, frozen=True, kw_only=True):
    """The route of a topic.

    `order_topic_conf` is "broker:queues;broker:queues" for strictly ordered topics. `topic_queue_mapping_by_broker`
    must stay None for ordinary topics: any entry switches clients to logical queues.
    """

    order_topic_conf: str | None = None
    queue_datas: list[QueueData] = msgspec.field(default_factory=list)
    broker_datas: list[BrokerData] = msgspec.field(default_factory=list)
    filter_server_table: dict[str, list[str]] = msgspec.field(default_factory=dict)
    topic_queue_mapping_by_broker: dict[str, TopicQueueMappingInfo] | None = None
