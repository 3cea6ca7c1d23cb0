"""What a load sends in each of its slots, and how many messages a reply stands for."""

import abc
import dataclasses
import itertools

from tools.bench import frames


@dataclasses.dataclass(frozen=True)
class Load:
    """What to send. It ends after `seconds` (measured after `warmup_s`), or once `messages` were stored or pulled.

    The kind "spread" sends messages with `keys` KEYS to `topics` topics in turn, named by `topic` and a number.
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
    if load.kind == "pull":
        return Pulls(load)
    return SpreadSends(load) if load.kind == "spread" else Sends(load)
