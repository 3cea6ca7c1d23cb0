"""Replies to what was stored for a caller: at once, or when it would be found again after a crash."""

import asyncio

from apogeemq.broker.core.topics import Topic
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.network import Resp
from apogeemq.remoting_codec.codes import ResponseCode


def reply_when_safe(
    acknowledger: Acknowledger, topic: Topic, end_offset: int, reply: Resp, *, wait: bool
) -> "Resp | asyncio.Future[Resp]":
    """The reply; a future only while something must be on disk first.

    Arguments as for `Acknowledger.when_safe`. The future fails with CallRefused: FLUSH_DISK_TIMEOUT when it is stored
    and not known to be on disk, else what the verdict says.
    """
    if acknowledger.is_safe(topic, wait):
        return reply
    future: asyncio.Future[Resp] = asyncio.get_running_loop().create_future()

    def settle(verdict: Verdict) -> None:
        if future.done():
            return
        if verdict.code is ResponseCode.SUCCESS:
            future.set_result(reply)
        else:
            future.set_exception(CallRefused(int(verdict.code), verdict.remark or ""))

    acknowledger.when_safe(topic, end_offset, wait, settle)
    return future
