"""A broker as a controller sees it, without a broker behind it: a thin client of the controller's own API.

It says what a test tells it to say, right or wrong, and keeps all that it is told. It beats by itself once it has a
lease, each `beat_s`, to the stream that it was opened on.
"""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import ClientStream, MeshChannel, Network
from apogeemq.mesh.v1 import controller_pb2 as pb
from apogeemq.mesh.v1.methods import CONTROLLER_JOIN

ANSWER_TIMEOUT_S = 15.0
BEAT_S = 0.3
Join = pb.JoinRequest


class RawBroker:
    """One stream of one broker to one controller."""

    def __init__(
        self,
        network: Network,
        target: str,
        *,
        cluster: str,
        name: str = "broker-a",
        code: str = "code-1",
        incarnation: int = 1,
        beat_s: float = BEAT_S,
    ) -> None:
        self._beat_s = beat_s
        self.broker_id = 0
        self.lease_id = 0
        self.end_offset = 0
        self.epoch = 0
        self.beaten = 0
        self.standing = pb.JoinReply.Standing()
        self.states: list[pb.SetState] = []
        self.told = 0
        self.register_again = 0
        self.refused: pb.Refused | None = None
        self.is_open = True
        self.knows = True
        self._hello = Join.Hello(cluster=cluster, broker_name=name, check_code=code, incarnation=incarnation)
        self._channel: MeshChannel = network.channel(target)
        self._stream: ClientStream[pb.JoinRequest, pb.JoinReply] = self._channel.stream(CONTROLLER_JOIN)
        self._answers: dict[int, asyncio.Future[pb.JoinReply.Answer]] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._stream.send(Join(hello=self._hello))
        self._tasks.append(asyncio.create_task(self._read()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.crash()

    async def crash(self) -> None:
        """Break the stream without a word."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    @property
    def state(self) -> pb.SetState:
        """What it was told last."""
        return self.states[-1] if self.states else pb.SetState()

    async def register(
        self,
        *,
        broker_id: int = 0,
        address: str = "127.0.0.1:1",
        boot_id: str = "boot",
        clean_stop: bool = True,
        last_epoch: int = 0,
        priority: int = 2**31 - 1,
        known: pb.SetState | None = None,
        end_offset: int = 0,
    ) -> pb.JoinReply.Answer:
        """Register, and beat from then on if that was accepted. `known` is the state that it has on its disk."""
        known = known or pb.SetState()
        answer = await self.ask(
            Join(
                register=Join.Register(
                    broker_id=broker_id,
                    address=address,
                    mesh_address=address,
                    boot_id=boot_id,
                    clean_stop=clean_stop,
                    last_epoch=last_epoch,
                    priority=priority,
                    end_offset=end_offset,
                    known_members=known.members,
                    known_master_epoch=known.master_epoch,
                    known_set_epoch=known.set_epoch,
                )
            )
        )
        if not answer.HasField("refused"):
            self.broker_id, self.lease_id, self.epoch = answer.broker_id, answer.lease_id, last_epoch
            self.start_beating()
        return answer

    def start_beating(self) -> None:
        """Beat each `beat_s`, for the lease that it has."""
        self._tasks.append(asyncio.create_task(self._beat()))

    async def elect(self, over_epoch: int = 0) -> pb.JoinReply.Answer:
        """Ask for an election."""
        return await self.ask(Join(ask_election=Join.AskElection(over_epoch=over_epoch)))

    async def propose(self, members: dict[int, int], *, epoch: int | None = None) -> pb.JoinReply.Answer:
        """Propose a SyncStateSet, by broker id and incarnation."""
        chosen = [Join.ChangeSet.Member(broker_id=each, incarnation=start) for each, start in members.items()]
        state = self.state
        change = Join.ChangeSet(
            master_epoch=state.master_epoch if epoch is None else epoch, set_epoch=state.set_epoch, members=chosen
        )
        return await self.ask(Join(change_set=change))

    async def ask(self, message: pb.JoinRequest) -> pb.JoinReply.Answer:
        """Send a request under a number of its own, and wait for its answer."""
        request_id = len(self._answers) + 1
        getattr(message, str(message.WhichOneof("kind"))).request_id = request_id
        future: asyncio.Future[pb.JoinReply.Answer] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        await self._stream.send(message)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await future

    async def say(self, message: pb.JoinRequest) -> None:
        """Send something that has no answer."""
        await self._stream.send(message)

    async def until(self, is_so: Callable[[], object], timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until `is_so()` holds, looked at after each message."""
        async with asyncio.timeout(timeout_s):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def _beat(self) -> None:
        number = 0
        with contextlib.suppress(MeshError):  # the reader has seen it too
            while True:
                number += 1
                beat = Join.Beat(
                    beat_id=number,
                    lease_id=self.lease_id,
                    broker_id=self.broker_id,
                    epoch=self.epoch,
                    end_offset=self.end_offset,
                )
                await self._stream.send(Join(beat=beat))
                await asyncio.sleep(self._beat_s)

    async def _read(self) -> None:
        with contextlib.suppress(MeshError):  # how a killed controller looks
            while (reply := await self._stream.receive()) is not None:
                await self._take(reply)
                self._news.set()
        self.is_open = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"the stream ended: {self.refused}"))
        self._news.set()

    async def _take(self, reply: pb.JoinReply) -> None:
        match reply.WhichOneof("kind"):
            case "standing":
                self.standing = reply.standing
            case "answer":
                self._answers[reply.answer.request_id].set_result(reply.answer)
            case "beaten":
                self.beaten = reply.beaten.beat_id
            case "set_state":
                await self._told(reply.set_state)
            case "register_again":
                self.register_again += 1
            case "refused":
                self.refused = reply.refused

    async def _told(self, state: pb.SetState) -> None:
        self.told += 1
        if not self.states or state != self.states[-1]:
            self.states.append(state)
        if self.knows:
            await self._stream.send(Join(knows=Join.Knows(master_epoch=state.master_epoch, set_epoch=state.set_epoch)))
