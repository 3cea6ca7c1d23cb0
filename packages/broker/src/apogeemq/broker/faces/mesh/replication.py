"""The mesh face for replicas: their hello is judged here, then their stream is the master's."""

from __future__ import annotations

import logging
from collections.abc import Callable

from apogeemq.broker.service.leading import Leading
from apogeemq.broker.service.replica_session import Refusal, ReplicaStream, refuse
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.network import StreamHandler
from apogeemq.mesh.v1 import replication_pb2 as pb
from apogeemq.mesh.v1.methods import REPLICATE

HELLO_TIMEOUT_S = 10.0
EPOCH_AHEAD_S = 1.0
"""How long a replica is kept that heard of an epoch before its master has begun it: they hear of it at the same time,
and the master notes it on its disk first. Refused, it would come back half a second later, and sends would wait."""
LOOK_S = 0.01
NAME_SIZE_MAX = 255
"""Characters of a cluster's or broker's name."""

_log = logging.getLogger(__name__)


class ReplicationFace:
    """Gives a replica's stream to the `Leading` of the moment; refuses it, saying why, when there is none.

    Args:
        file_size_bytes: of this broker's commit log; a replica has to have the same.
        leading: asked for each hello.
    """

    def __init__(
        self,
        *,
        cluster: str,
        broker_name: str,
        file_size_bytes: int,
        leading: Callable[[], Leading | None],
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._broker_name = broker_name
        self._file_size_bytes = file_size_bytes
        self._leading = leading
        self._clock = clock
        self.handler: StreamHandler[pb.ReplicaMessage, pb.MasterMessage] = StreamHandler(REPLICATE, self._serve)

    async def _serve(self, stream: ReplicaStream) -> None:
        try:
            hello = await self._hello_of(stream)
            self._check_set(hello)
            await self._until_led(hello.epoch)
            leading = self._leader_for(hello)
        except Refusal as refusal:
            _log.warning("replica at %s is refused: %s", stream.peer, refusal)
            await refuse(stream, refusal, self._clock)
            return
        await leading.serve(stream, hello)

    async def _hello_of(self, stream: ReplicaStream) -> pb.ReplicaMessage.Hello:
        try:
            first = await within(self._clock, HELLO_TIMEOUT_S, stream.receive())
        except TimeoutError as error:
            raise Refusal(pb.REPLICATION_REFUSAL_TOO_SLOW, f"no hello within {HELLO_TIMEOUT_S:g} s") from error
        if first is None or first.WhichOneof("kind") != "hello":
            raise Refusal(pb.REPLICATION_REFUSAL_INVALID, "a replica's first message is its hello")
        hello = first.hello
        if len(hello.cluster) > NAME_SIZE_MAX or len(hello.broker_name) > NAME_SIZE_MAX:
            raise Refusal(pb.REPLICATION_REFUSAL_INVALID, f"a name has more than {NAME_SIZE_MAX} characters")
        if min(hello.broker_id, hello.incarnation, hello.epoch - 1) < 0:
            raise Refusal(
                pb.REPLICATION_REFUSAL_INVALID,
                f"broker id {hello.broker_id}, incarnation {hello.incarnation} and epoch {hello.epoch} must be 0, 0 "
                "and 1 at least",
            )
        return hello

    def _check_set(self, hello: pb.ReplicaMessage.Hello) -> None:
        if (hello.cluster, hello.broker_name) != (self._cluster, self._broker_name):
            raise Refusal(
                pb.REPLICATION_REFUSAL_WRONG_SET,
                f"this is broker {self._broker_name} of cluster {self._cluster}, the replica is of {hello.broker_name} "
                f"in {hello.cluster}",
            )
        if hello.commit_log_file_size_bytes != self._file_size_bytes:
            raise Refusal(
                pb.REPLICATION_REFUSAL_OTHER_FILE_SIZE,
                f"commit log files here have {self._file_size_bytes} bytes, the replica's "
                f"{hello.commit_log_file_size_bytes}: brokers of one set need the same mappedFileSizeCommitLog",
            )

    async def _until_led(self, epoch: int) -> None:
        """Wait until this epoch or a newer one is led here, at most EPOCH_AHEAD_S."""
        for _ in range(round(EPOCH_AHEAD_S / LOOK_S)):
            leading = self._leading()
            if leading is not None and not leading.is_over and leading.epoch >= epoch:
                return
            await self._clock.sleep(LOOK_S)

    def _leader_for(self, hello: pb.ReplicaMessage.Hello) -> Leading:
        leading = self._leading()
        if leading is None or leading.is_over:
            raise Refusal(pb.REPLICATION_REFUSAL_NOT_MASTER, "this broker is not master now")
        if hello.epoch != leading.epoch:
            raise Refusal(
                pb.REPLICATION_REFUSAL_OTHER_EPOCH,
                f"this broker leads epoch {leading.epoch}, the replica obeys epoch {hello.epoch}",
            )
        if hello.broker_id == leading.own.broker_id:
            raise Refusal(
                pb.REPLICATION_REFUSAL_WRONG_SET, f"broker {hello.broker_id} is this master itself: two have one id"
            )
        return leading
