"""Mesh messages ↔ the values of the core. What is out of range stays so: the core judges it."""

from __future__ import annotations

from collections.abc import Iterable

from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.namesrv.core.effects import Accepted, NeedFull, Refused, TopicsLeftOut
from apogeemq.namesrv.core.registrar import Announced
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, TopicQueues


def identity_of(message: pb.BrokerIdentity) -> BrokerIdentity:
    """Read who registers."""
    return BrokerIdentity(
        cluster=message.cluster,
        broker_name=message.broker_name,
        broker_id=message.broker_id,
        incarnation=message.incarnation,
        remoting_address=message.remoting_address,
        mesh_address=message.mesh_address,
        zone=message.zone,
        master_epoch=message.master_epoch,
    )


def version_of(message: pb.DataVersion) -> DataVersion:
    """Read a version; one that was not set is 0, 0, 0."""
    return DataVersion(message.state_version, message.timestamp_ms, message.counter)


def topics_of(messages: Iterable[pb.TopicConfig]) -> Announced:
    """Read announced topics, in order."""
    return [
        (
            topic.topic_name,
            TopicQueues(topic.read_queue_nums, topic.write_queue_nums, topic.perm, topic.topic_sys_flag),
        )
        for topic in messages
    ]


def reply_message(reply: Accepted | NeedFull | TopicsLeftOut | Refused) -> pb.RegistrationReply:
    """Write a reply."""
    match reply:
        case Accepted(data_version):
            version = pb.DataVersion(
                state_version=data_version.state_version,
                timestamp_ms=data_version.timestamp_ms,
                counter=data_version.counter,
            )
            return pb.RegistrationReply(accepted=pb.RegistrationReply.Accepted(data_version=version))
        case NeedFull():
            return pb.RegistrationReply(need_full=pb.RegistrationReply.NeedFull())
        case Refused(code, text):
            refused = pb.RegistrationReply.Refused(code=pb.RefusalCode.Name(code), text=text)
            return pb.RegistrationReply(refused=refused)
        case TopicsLeftOut(count, examples):
            topics = [pb.RegistrationReply.TopicsLeftOut.Topic(topic_name=n, reason=r) for n, r in examples]
            left_out = pb.RegistrationReply.TopicsLeftOut(count=count, examples=topics)
            return pb.RegistrationReply(topics_left_out=left_out)
