"""A slave that consumers read from becomes master: who reads goes on over the same connection."""

import pathlib

import msgspec
import pytest
from apogeemq.remoting_codec.bodies import LockBatchRequestBody, LockBatchResponseBody, MessageQueue
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.broker_set import SET, BrokerSetDeployment
from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, send_fields

pytestmark = pytest.mark.verify

TOPIC = "Promoted"
LOCKED = LockBatchRequestBody(
    consumer_group="G_ordered", client_id="one", mq_set=[MessageQueue(topic=TOPIC, broker_name=SET, queue_id=0)]
)
READ = {ResponseCode.SUCCESS, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_NOT_FOUND}


def locked(client: WireClient, member: str) -> bool:
    """Whether this member of an ordered group gets its queue."""
    body = msgspec.structs.replace(LOCKED, client_id=member)
    reply = client.request(RequestCode.LOCK_BATCH_MQ, {}, body.encode())
    assert reply.code == ResponseCode.SUCCESS, reply
    return bool(LockBatchResponseBody.decode(reply.body).lock_ok_mq_set)


def test_a_promoted_slave_goes_on_with_its_readers(tmp_path: pathlib.Path) -> None:
    """No pull is refused from the kill of the master on; the next master knows the group's members, and takes sends.

    Who consumes a queue in order stays alone with it.
    """
    with BrokerSetDeployment(tmp_path, etcd=1) as deployment:
        before = deployment.whole()
        old = deployment.routed()
        with WireClient(old) as client:
            client.heartbeat("c", "G", TOPIC)
            assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"1").code == ResponseCode.SUCCESS
            assert locked(client, "one")
        slaves = {address: WireClient(address) for address in deployment.remoting.values() if address != old}

        def is_known(client: WireClient) -> bool:
            """Its group has come from the master, and lets it be a member."""
            client.heartbeat("c", "G", TOPIC)
            listed = client.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "G"})
            return listed.code == ResponseCode.SUCCESS and b'"c"' in listed.body

        for client in slaves.values():
            poll_until(lambda client=client: is_known(client), 30.0, lambda: AssertionError("not known"))  # type: ignore[misc]
            poll_until(
                lambda client=client: client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, "G")).code == 0,  # type: ignore[misc]
                30.0,
                lambda: AssertionError("nothing is read"),
            )
        deployment.process(deployment.name_of(before["master_id"])).kill()

        def is_followed() -> bool:
            for client in slaves.values():
                reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, "G"))
                assert reply.code in READ, reply
            return deployment.routed() not in {"", old}

        poll_until(is_followed, 30.0, lambda: AssertionError(f"nobody follows\n{deployment.logs()[-10_000:]}"))
        promoted = slaves[deployment.routed()]
        listed = promoted.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "G"})
        assert (listed.code, b'"c"' in listed.body) == (ResponseCode.SUCCESS, True)
        assert promoted.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"2").code == ResponseCode.SUCCESS
        assert [record.body for record in pull_all(promoted, TOPIC, "G")] == [b"1", b"2"]
        assert not locked(promoted, "two")
        assert locked(promoted, "one")
        for client in slaves.values():
            client.socket.close()
        assert "Traceback" not in deployment.logs()
