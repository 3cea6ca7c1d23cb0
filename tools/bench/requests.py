"""What a load sends in each of its slots, and how many messages a reply stands for."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Mapping

from tools.bench import frames, kind_frames


@dataclasses.dataclass(frozen=True)
class Load:
    """What to send. It ends after `seconds` (measured after `warmup_s`), or once `messages` were stored or pulled.

    The kind "spread" sends messages with `keys` KEYS to `topics` topics in turn, named by `topic` and a number; "timed"
    sends timer messages that are due from `due_from_ms` to `due_to_ms` (milliseconds since 1970).
    """

    kind: str
    host: str
    port: int
    topic: str
    connections: int
    depth: int
    body_bytes: int = 1024
    batch: int = 32
    seconds: float = 5.0
    warmup_s: float = 1.0
    messages: int | None = None
    server_pids: tuple[int, ...] = ()
    topics: int = 1
    keys: int = 0
    due_from_ms: int = 0
    due_to_ms: int = 0
    label: str = ""


class Requests(abc.ABC):
    """Makes the requests of the slots and reads how many messages a successful reply stands for."""

    @abc.abstractmethod
    def next(self, slot: int) -> frames.Buffer | None:
        """The request to send in that slot, valid until the next call for the slot; None when there is nothing more."""

    @abc.abstractmethod
    def messages_in(self, buffer: bytearray, start: int) -> int:
        """Of the reply at `start`, which has code 0."""

    def accepts(self, reply: frames.Reply) -> bool:
        """Whether a reply with another code than 0 is none the less no error."""
        del reply
        return False


class Sends(Requests):
    """Single sends or batches, the slots spread over the topic's queues."""

    def __init__(self, load: Load) -> None:
        self._messages_each = load.batch if load.kind == "batch" else 1
        self._left = None if load.messages is None else -(-load.messages // self._messages_each)
        self._templates = self._made(load, b"x" * load.body_bytes)

    def next(self, slot: int) -> frames.Buffer | None:
        """The slot's frame again, with fresh keys."""
        if self._left is not None:
            if self._left == 0:
                return None
            self._left -= 1
        template = self._template(slot)
        template.renew_keys()
        return template.frame

    def messages_in(self, buffer: bytearray, start: int) -> int:
        """One, or a whole batch."""
        return self._messages_each

    def _made(self, load: Load, body: bytes) -> list[frames.Template]:
        """One template a slot."""
        templates = []
        for slot in range(load.connections * load.depth):
            queue_id = slot % frames.TOPIC_QUEUES
            if load.kind == "batch":
                templates.append(frames.batch_template(load.topic, queue_id, slot, body, load.batch))
            else:
                templates.append(frames.send_template(load.topic, queue_id, slot, body))
        return templates

    def _template(self, slot: int) -> frames.Template:
        return self._templates[slot]


class SpreadSends(Sends):
    """Single sends to many topics in turn, whatever the slot."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._turn = itertools.cycle(self._templates)

    def _made(self, load: Load, body: bytes) -> list[frames.Template]:
        """Each topic's, and as many as slots at least: so none is needed twice at a time."""
        slots = load.connections * load.depth
        return [
            frames.send_template(
                f"{load.topic}_{number % load.topics}", number % frames.TOPIC_QUEUES, 0, body, load.keys
            )
            for number in range(-(-slots // load.topics) * load.topics)
        ]

    def _template(self, slot: int) -> frames.Template:
        template = next(self._turn)
        template.address(slot)
        return template


class Transactions(Sends):
    """Half messages; the end of each goes out with the next of its slot. A transaction counts as a message."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._topic = load.topic
        self._ends: dict[int, bytes] = {}

    def next(self, slot: int) -> frames.Buffer | None:
        """The commit of the slot's last half message, which has no reply, and the next half message."""
        end = self._ends.pop(slot, b"")
        half = super().next(slot)
        return end + half if half is not None else None

    def messages_in(self, buffer: bytearray, start: int) -> int:
        """One; its end is due now."""
        reply = frames.decode(buffer, start)
        self._ends[reply.slot] = kind_frames.end_transaction_request(self._topic, reply)
        return 1

    def _made(self, load: Load, body: bytes) -> list[frames.Template]:
        return [
            frames.send_template(
                load.topic,
                slot % frames.TOPIC_QUEUES,
                slot,
                body,
                more=kind_frames.HALF_PROPERTIES,
                sys_flag=kind_frames.PREPARED_SYS_FLAG,
            )
            for slot in range(load.connections * load.depth)
        ]


class TimedSends(Sends):
    """Single sends of timer messages. The first is due at `due_from_ms`, the others evenly until `due_to_ms`."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        assert load.messages is not None, "a load of timer messages is of so many"
        self._count = load.messages
        self._sent = 0
        self._due_from_ms, self._spread_ms = load.due_from_ms, load.due_to_ms - load.due_from_ms
        self._due_offsets = [template.frame.find(_DUE_PLACE) for template in self._templates]

    def next(self, slot: int) -> frames.Buffer | None:
        """The slot's frame again, with its time."""
        frame = super().next(slot)
        if isinstance(frame, bytearray):
            due_ms = self._due_from_ms + self._spread_ms * self._sent // self._count
            at = self._due_offsets[slot]
            frame[at : at + len(_DUE_PLACE)] = b"%d" % due_ms
            self._sent += 1
        return frame

    def _made(self, load: Load, body: bytes) -> list[frames.Template]:
        return [
            frames.send_template(
                load.topic, slot % frames.TOPIC_QUEUES, slot, body, more={"TIMER_DELIVER_MS": _DUE_PLACE.decode()}
            )
            for slot in range(load.connections * load.depth)
        ]


_DUE_PLACE = b"9" * 13
"""Where a time goes: milliseconds since 1970 have 13 digits until the year 2286."""


class Pulls(Requests):
    """Each slot reads one queue from its start; at its end it starts anew, or has done when the load has an end."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._offsets = dict.fromkeys(range(load.connections * load.depth), 0)
        self._is_done = dict.fromkeys(self._offsets, False)

    def next(self, slot: int) -> frames.Buffer | None:
        """A pull where the last one of the slot ended."""
        if self._is_done[slot]:
            return None
        queue_id = slot % frames.TOPIC_QUEUES
        load = self._load
        return frames.pull_request(load.topic, "bench_pullers", queue_id, self._offsets[slot], load.batch, slot)

    def messages_in(self, buffer: bytearray, start: int) -> int:
        """The records in its body; the slot goes on behind them."""
        reply = frames.decode(buffer, start)
        self._offsets[reply.slot] = int(reply.ext_fields["nextBeginOffset"])
        return frames.count_records(reply.body)

    def accepts(self, reply: frames.Reply) -> bool:
        """The end of the queue is no error."""
        if reply.code != frames.PULL_NOT_FOUND:
            return False
        if self._load.messages is None:
            self._offsets[reply.slot] = 0
        else:
            self._is_done[reply.slot] = True
        return True


def requests_of(load: Load) -> Requests:
    """What makes the requests of a load of that kind."""
    return _KINDS.get(load.kind, Sends)(load)


_KINDS: Mapping[str, Callable[[Load], Requests]] = {
    "pull": Pulls,
    "spread": SpreadSends,
    "transaction": Transactions,
    "timed": TimedSends,
}
