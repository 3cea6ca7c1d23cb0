"""Messages through a real server, over raw frames: what is sent is what is pulled, and who waits is woken."""

import time
import zlib

from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_frame
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records
from apogeemq.remoting_codec.route import TopicRouteData

from tests.e2e.process import Ready
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, send_fields


def broker(server: Ready) -> WireClient:
    return WireClient(server.listeners["broker.remoting"])


def offset_of(reply_fields: dict[str, str] | None) -> int:
    assert reply_fields is not None
    return int(reply_fields["offset"])


def test_a_message_comes_back_as_it_was_sent(server: Ready) -> None:
    """Body, flag, properties and times; with what the broker adds, and the ids that the reply named."""
    with broker(server) as client:
        properties = (
            "TAGS\x01TagA\x02KEYS\x01k1 k2\x02UNIQ_KEY\x017F00000102030405060708090A0B0C0D\x02colour\x01blå\x02"
        )
        sent = client.request(310, send_fields("E2E_Basic", 2, properties, h="7"), b"hello")
        assert sent.code == ResponseCode.SUCCESS
        assert sent.ext_fields is not None
        assert sent.ext_fields["queueId"] == "2"
        assert sent.ext_fields["queueOffset"] == "0"
        assert sent.ext_fields["transactionId"] == "7F00000102030405060708090A0B0C0D"
        assert sent.ext_fields["MSG_REGION"] == "DefaultRegion"
        assert sent.ext_fields["TRACE_ON"] == "true"
        (record,) = pull_all(client, "E2E_Basic", "G_basic", 2)
        assert record.body == b"hello"
        assert record.flag == 7
        assert (record.topic, record.queue_id, record.queue_offset) == ("E2E_Basic", 2, 0)
        assert record.born_timestamp_ms == 1795356276399
        assert record.body_crc == zlib.crc32(b"hello") & 0x7FFFFFFF
        host, port = client.socket.getsockname()[:2]
        assert record.born_host == bytes(int(part) for part in host.split(".")) + port.to_bytes(4, "big")
        assert sent.ext_fields["msgId"] == (record.store_host + record.physical_offset.to_bytes(8, "big")).hex().upper()
        assert decode_properties(record.properties) == {
            "TAGS": "TagA",
            "KEYS": "k1 k2",
            "UNIQ_KEY": "7F00000102030405060708090A0B0C0D",
            "colour": "blå",
            "MSG_REGION": "DefaultRegion",
            "TRACE_ON": "true",
            "CLUSTER": "DefaultCluster",
        }


def test_long_header_names_and_oneway(server: Ready) -> None:
    """SEND_MESSAGE (10) has long names; a oneway send is stored and not answered."""
    with broker(server) as client:
        fields = {
            "producerGroup": "P",
            "topic": "E2E_V1",
            "defaultTopic": "TBW102",
            "defaultTopicQueueNums": "1",
            "queueId": "0",
            "sysFlag": "0",
            "bornTimestamp": "1",
            "flag": "0",
            "properties": "TAGS\x01T",  # 4.9.8 leaves the last separator out
        }
        assert client.request(10, fields, b"one").code == 0
        client.send(310, send_fields("E2E_V1"), b"two", oneway=True)
        client.send(10, fields, b"three", oneway=True)
        assert [r.body for r in pull_all(client, "E2E_V1", "G")] == [b"one", b"two", b"three"]
        assert not client.pushed


def test_a_batch_is_many_messages(server: Ready) -> None:
    """Consecutive offsets, one id each, comma-joined; each message keeps its own key."""
    with broker(server) as client:
        body = encode_batch(
            [BatchMessage(flag=n, body=b"b%d" % n, properties=b"UNIQ_KEY\x01K%d\x02" % n) for n in range(5)]
        )
        sent = client.request(320, send_fields("E2E_Batch", 1, "UNIQ_KEY\x01WHOLE\x02", m="true"), body)
        assert sent.code == 0
        assert sent.ext_fields is not None
        assert sent.ext_fields["queueOffset"] == "0"
        records = pull_all(client, "E2E_Batch", "G", 1)
        assert [r.body for r in records] == [b"b0", b"b1", b"b2", b"b3", b"b4"]
        assert [r.flag for r in records] == [0, 1, 2, 3, 4]
        assert [r.queue_offset for r in records] == [0, 1, 2, 3, 4]
        assert [decode_properties(r.properties)["UNIQ_KEY"] for r in records] == ["K0", "K1", "K2", "K3", "K4"]
        ids = [(r.store_host + r.physical_offset.to_bytes(8, "big")).hex().upper() for r in records]
        assert sent.ext_fields["msgId"] == ",".join(ids)


def test_the_route_is_known_once_the_topic_is_made(server: Ready) -> None:
    """A send makes the topic as its template says; the name server then routes to it, for masters' address id 0."""
    with broker(server) as client, WireClient(server.listeners["namesrv.remoting"]) as namesrv:
        assert namesrv.request(105, {"topic": "E2E_Route"}).code == ResponseCode.TOPIC_NOT_EXIST
        client.request(310, send_fields("E2E_Route", d="3"), b"x")
        reply = namesrv.request(105, {"topic": "E2E_Route"})
        while (
            reply.code == ResponseCode.TOPIC_NOT_EXIST
        ):  # the delta is on its way; the test's own deadline bounds this
            reply = namesrv.request(105, {"topic": "E2E_Route"})
        route = TopicRouteData.decode(reply.body)
        (queues,) = route.queue_datas
        assert (queues.read_queue_nums, queues.write_queue_nums, queues.perm) == (3, 3, 6)
        (data,) = route.broker_datas
        assert data.broker_addrs == {0: server.listeners["broker.remoting"]}


def test_a_held_pull_is_woken_by_a_message(server: Ready) -> None:
    """A pull with the suspend bit waits; a message of its tag wakes it, another does not."""
    with broker(server) as consumer, broker(server) as producer:
        producer.request(310, send_fields("E2E_Poll"), b"first")
        held = {"sysFlag": "6", "suspendTimeoutMillis": "15000", "subscription": "Wanted"}
        opaque = consumer.send(11, pull_fields("E2E_Poll", "G_poll", 0, 1, **held))
        producer.request(310, send_fields("E2E_Poll", 0, "TAGS\x01Other\x02"), b"not this one")
        producer.request(310, send_fields("E2E_Poll", 0, "TAGS\x01Wanted\x02"), b"this one")
        reply = consumer.receive(opaque)
        assert reply.code == ResponseCode.SUCCESS
        assert [r.body for r in decode_records(reply.body)] == [b"this one"]
        assert reply.ext_fields is not None
        assert reply.ext_fields["nextBeginOffset"] == "3"


def test_a_held_pull_ends_with_nothing(server: Ready) -> None:
    """After its time a held pull is answered 19 with Apache's remark and the same offset."""
    with broker(server) as client:
        client.request(310, send_fields("E2E_Timeout"), b"x")
        held = {"sysFlag": "6", "suspendTimeoutMillis": "300"}
        reply = client.request(11, pull_fields("E2E_Timeout", "G", 0, 1, **held))
        assert (reply.code, reply.remark) == (ResponseCode.PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE")
        assert reply.ext_fields is not None
        assert reply.ext_fields["nextBeginOffset"] == "1"


def test_offsets_outside_the_queue(server: Ready) -> None:
    """Beyond the end: 21 and the end; tags that match nothing: 20 and the end; as recorded from Apache 5.3.3."""
    with broker(server) as client:
        for _ in range(3):
            client.request(310, send_fields("E2E_Range"), b"x")
        far = client.request(11, pull_fields("E2E_Range", "G", 0, 100_000))
        assert (far.code, far.remark) == (ResponseCode.PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY")
        assert (far.ext_fields or {})["nextBeginOffset"] == "3"
        none = client.request(11, pull_fields("E2E_Range", "G", 0, 0, subscription="TagNone"))
        assert (none.code, none.remark) == (ResponseCode.PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE")
        assert (none.ext_fields or {})["nextBeginOffset"] == "3"
        empty = client.request(11, pull_fields("E2E_Range", "G", 1, 5))
        assert empty.code == ResponseCode.PULL_OFFSET_MOVED


def test_offsets_are_kept_for_a_group(server: Ready) -> None:
    """The rules of QUERY_CONSUMER_OFFSET: 0 on a young queue, 22 when asked not to guess, then what was committed."""
    with broker(server) as client:
        client.request(310, send_fields("E2E_Off"), b"x")
        asked = {"consumerGroup": "G_off", "topic": "E2E_Off", "queueId": "0"}
        assert offset_of(client.request(14, asked).ext_fields) == 0
        strict = client.request(14, {**asked, "setZeroIfNotFound": "false"})
        assert strict.code == ResponseCode.QUERY_NOT_FOUND
        assert client.request(14, {**asked, "queueId": "1"}).code == ResponseCode.QUERY_NOT_FOUND
        client.heartbeat("c1", "G_off", "E2E_Off")
        assert client.request(15, {**asked, "commitOffset": "1"}).code == 0
        assert offset_of(client.request(14, asked).ext_fields) == 1
        client.send(15, {**asked, "commitOffset": "0"}, oneway=True)
        assert offset_of(client.request(14, asked).ext_fields) == 0


def test_offsets_by_time(server: Ready) -> None:
    """Before the first message the search gives the begin, after the last one the end."""
    with broker(server) as client:
        for _ in range(4):
            client.request(310, send_fields("E2E_Time"), b"x")
        records = pull_all(client, "E2E_Time", "G")
        asked = {"topic": "E2E_Time", "queueId": "0"}
        first, last = records[0].store_timestamp_ms, records[-1].store_timestamp_ms
        assert offset_of(client.request(29, {**asked, "timestamp": str(first - 1000)}).ext_fields) == 0
        assert offset_of(client.request(29, {**asked, "timestamp": str(first)}).ext_fields) == 0
        assert offset_of(client.request(29, {**asked, "timestamp": str(last + 1000)}).ext_fields) == 4
        upper = client.request(29, {**asked, "timestamp": str(last), "boundaryType": "UPPER"})
        assert offset_of(upper.ext_fields) == 3
        earliest = client.request(32, asked)
        assert (earliest.ext_fields or {})["timestamp"] == str(first)
        assert offset_of(client.request(30, asked).ext_fields) == 4
        assert offset_of(client.request(31, asked).ext_fields) == 0


def test_members_of_a_group_are_told_of_each_other(server: Ready) -> None:
    """Join and leave notify all members; the list has them; an empty group is an error, not an empty list."""
    with broker(server) as one, broker(server) as two:
        beat = one.heartbeat("client-1", "G_members", "E2E_Basic")
        assert beat.ext_fields == {"IS_SUPPORT_HEART_BEAT_V2": "true", "IS_SUB_CHANGE": "true"}
        assert (one.wait_pushed(40).ext_fields or {})["consumerGroup"] == "G_members"
        two.heartbeat("client-2", "G_members", "E2E_Basic")
        assert (one.wait_pushed(40).ext_fields or {})["consumerGroup"] == "G_members"
        listed = one.request(38, {"consumerGroup": "G_members"})
        assert listed.body == b'{"consumerIdList":["client-1","client-2"]}'
        two.socket.close()  # a lost connection is a leave
        one.wait_pushed(40)
        assert one.request(38, {"consumerGroup": "G_members"}).body == b'{"consumerIdList":["client-1"]}'
        assert one.request(35, {"clientID": "client-1", "consumerGroup": "G_members"}).code == 0
        nobody = one.request(38, {"consumerGroup": "G_members"})
        assert (nobody.code, nobody.remark) == (ResponseCode.SYSTEM_ERROR, "no consumer for this group, G_members")


def test_a_pull_follows_the_registered_subscription(server: Ready) -> None:
    """Without its own subscription a pull needs a live group (24), and one not older than its own (25)."""
    with broker(server) as client:
        client.request(310, send_fields("E2E_Sub", 0, "TAGS\x01A\x02"), b"a")
        client.request(310, send_fields("E2E_Sub", 0, "TAGS\x01B\x02"), b"b")
        fields = pull_fields("E2E_Sub", "G_sub", sysFlag="0", subVersion="5")
        del fields["subscription"]
        assert client.request(11, fields).code == ResponseCode.SUBSCRIPTION_NOT_EXIST
        client.heartbeat("c", "G_sub", "E2E_Sub", "B", version=4)
        assert client.request(11, fields).code == ResponseCode.SUBSCRIPTION_NOT_LATEST
        client.heartbeat("c", "G_sub", "E2E_Sub", "B", version=5)
        reply = client.request(11, fields)
        assert [r.body for r in decode_records(reply.body)] == [b"b"]


def test_a_failed_message_comes_back_on_the_retry_topic(server: Ready) -> None:
    """Sent back with level 1 it is delivered a second later with its history; after too many it is a dead letter."""
    with broker(server) as client:
        client.heartbeat("c", "G_back", "E2E_Back")
        client.request(310, send_fields("E2E_Back", 0, "KEYS\x01k\x02"), b"again please")
        (record,) = pull_all(client, "E2E_Back", "G_back")
        back = {"offset": str(record.physical_offset), "group": "G_back", "delayLevel": "1", "maxReconsumeTimes": "1"}
        assert client.request(36, back).code == 0
        held = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
        reply = client.request(11, pull_fields("%RETRY%G_back", "G_back", 0, 0, **held))
        (retried,) = decode_records(reply.body)
        assert (retried.body, retried.reconsume_times) == (b"again please", 1)
        assert retried.store_timestamp_ms - record.store_timestamp_ms >= 1000
        properties = decode_properties(retried.properties)
        assert properties["RETRY_TOPIC"] == "E2E_Back"
        assert properties["KEYS"] == "k"
        origin = (record.store_host + record.physical_offset.to_bytes(8, "big")).hex().upper()
        assert properties["ORIGIN_MESSAGE_ID"] == origin
        assert client.request(36, {**back, "offset": str(retried.physical_offset)}).code == 0
        (dead,) = pull_all(client, "%DLQ%G_back", "G_back")
        assert (dead.body, dead.reconsume_times) == (b"again please", 2)
        assert client.request(36, {**back, "offset": "999999999"}).code == ResponseCode.SYSTEM_ERROR
        assert client.request(36, {**back, "group": "G_nobody"}).code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST


def test_a_timer_message_comes_when_it_is_due_and_a_recalled_one_never(server: Ready) -> None:
    """Not before its millisecond, to a pull that waits for it."""
    with broker(server) as client:
        sent = client.request(310, send_fields("E2E_Timer", 0, "TIMER_DELAY_MS\x012500\x02"), b"never")
        assert sent.ext_fields is not None
        recall = {"topic": "E2E_Timer", "recallHandle": sent.ext_fields["recallHandle"]}
        recalled = client.request(370, recall)
        assert recalled.code == ResponseCode.SUCCESS
        assert recalled.ext_fields == {"msgId": sent.ext_fields["transactionId"], "MSG_REGION": "DefaultRegion"}
        deliver_ms = time.time_ns() // 1_000_000 + 3_000
        later = send_fields("E2E_Timer", 0, f"TIMER_DELIVER_MS\x01{deliver_ms}\x02")
        assert client.request(310, later, b"later").code == ResponseCode.SUCCESS
        pulled = client.request(11, pull_fields("E2E_Timer", "G_timer", 0, 0, sysFlag="6", suspendTimeoutMillis="8000"))
        (record,) = decode_records(pulled.body)
        assert record.body == b"later"
        assert record.store_timestamp_ms >= deliver_ms


def test_a_half_message_is_seen_by_nobody(server: Ready) -> None:
    """Until its producer commits it."""
    with broker(server) as client:
        half = send_fields("E2E_Half", 0, "TRAN_MSG\x01true\x02PGROUP\x01P\x02")
        assert client.request(310, half, b"x").code == 0
        assert pull_all(client, "E2E_Half", "G") == []


def test_sql_chooses_by_properties(server: Ready) -> None:
    """A pull with SQL92 gets what matches; an expression that is none is refused with its place."""
    with broker(server) as client:
        for number in range(6):
            assert client.request(310, send_fields("E2E_Sql", 0, f"n\x01{number}\x02"), b"%d" % number).code == 0
        expression = "n >= 2 AND n NOT BETWEEN 3 AND 4"
        pulled = client.request(11, pull_fields("E2E_Sql", "G_sql", expressionType="SQL92", subscription=expression))
        assert pulled.code == ResponseCode.SUCCESS
        assert [record.body for record in decode_records(pulled.body)] == [b"2", b"5"]
        wrong = client.request(11, pull_fields("E2E_Sql", "G_sql", expressionType="SQL92", subscription="n >"))
        assert wrong.code == ResponseCode.SUBSCRIPTION_PARSE_FAILED
        assert "line 1, column 4" in (wrong.remark or "")


def test_many_pipelined_sends_are_answered_in_order(server: Ready) -> None:
    """2,000 sends written without waiting: every one is answered, offsets are gapless, the order is kept."""
    with broker(server) as client:
        assert client.request(310, send_fields("E2E_Pipe"), b"0").code == 0
        opaques = [client.send(310, send_fields("E2E_Pipe"), b"%d" % n) for n in range(1, 2001)]
        offsets = [int((client.receive(opaque).ext_fields or {})["queueOffset"]) for opaque in opaques]
        assert offsets == list(range(1, 2001))
        assert [r.body for r in pull_all(client, "E2E_Pipe", "G")] == [b"%d" % n for n in range(2001)]


def test_the_binary_header_is_understood(server: Ready) -> None:
    """A client may write binary headers; the answer has a JSON header, as Apache's (trap 1)."""
    with broker(server) as client:
        command = RemotingCommand(310, 0, 4711, None, send_fields("E2E_Binary"), b"x", "JAVA", 479, 1)
        client.socket.sendall(encode_frame(command))
        reply = client.receive(4711)
        assert (reply.code, reply.serialize_type) == (0, 0)


def test_queues_are_locked_for_one_member(server: Ready) -> None:
    """The first client gets the queues that it asks for, the second none until they are given back."""
    body = '{"clientId":"%s","consumerGroup":"G_lock","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}'
    with broker(server) as client:
        held = client.request(41, {}, (body % "one").encode())
        assert held.body == b'{"lockOKMQSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}'
        assert client.request(41, {}, (body % "two").encode()).body == b'{"lockOKMQSet":[]}'
        client.send(42, {}, (body % "one").encode(), oneway=True)
        assert client.request(41, {}, (body % "two").encode()).body == held.body
        assert client.request(41, {}, b'{"mqSet":[]}').code == ResponseCode.SYSTEM_ERROR
