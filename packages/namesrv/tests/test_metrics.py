"""What the name server shows under /metrics."""

from apogeemq.mesh.metrics import Registry
from apogeemq.namesrv.core.registrar import Registrar, RegistrarLimits
from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, TopicQueues
from apogeemq.namesrv.metrics import RequestCounter, observe
from apogeemq.remoting_codec.aio.stats import ServerStats
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode


def test_requests_are_counted_by_code_and_result() -> None:
    """One line for each pair of names."""
    registry = Registry()
    counter = RequestCounter(registry)
    for result in (ResponseCode.SUCCESS, ResponseCode.TOPIC_NOT_EXIST, ResponseCode.SUCCESS):
        counter.count(RequestCode.GET_ROUTEINFO_BY_TOPIC, result)
    lines = registry.render().splitlines()
    prefix = 'rocketmq_namesrv_requests_total{request_code="GET_ROUTEINFO_BY_TOPIC",response_code='
    assert prefix + '"SUCCESS"} 2' in lines
    assert prefix + '"TOPIC_NOT_EXIST"} 1' in lines


def test_unknown_request_codes_share_a_line() -> None:
    """Whoever tries all numbers does not fill the registry."""
    registry = Registry()
    counter = RequestCounter(registry)
    for code in (0, -1, 9_998, 9_999):
        counter.count(code, ResponseCode.REQUEST_CODE_NOT_SUPPORTED)
    text = registry.render()
    assert 'request_code="unknown",response_code="REQUEST_CODE_NOT_SUPPORTED"} 4' in text
    assert "9999" not in text


def test_gauges_show_the_tables_and_connections() -> None:
    """They are read when scraped."""
    registry, table, connections = Registry(), RouteTable(), ServerStats()
    registrar = Registrar(table, RegistrarLimits())
    observe(registry, table, registrar, connections, lambda: 3)
    identity = BrokerIdentity("DefaultCluster", "broker-a", 0, 1, "10.0.0.1:10911")
    table.put_member(identity, DataVersion(0, 0, 1), {topic: TopicQueues(4, 4, 6, 0) for topic in ("A", "B", "C")})
    registrar.open(0)
    registrar.open(0)
    connections.connections_open = 7
    lines = registry.render().splitlines()
    assert "rocketmq_namesrv_brokers 1" in lines
    assert "rocketmq_namesrv_topics 3" in lines
    assert "rocketmq_namesrv_registration_streams 2" in lines
    assert "rocketmq_namesrv_connections 7" in lines
    assert "rocketmq_namesrv_route_watches 3" in lines
