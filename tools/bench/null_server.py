"""A server that answers every request at once with a canned reply: what the generator reaches here is its ceiling.

    .venv/bin/python -m tools.bench.null_server

It listens on a free port of loopback and says so with the ready line that our services print too. It ends on SIGTERM.
"""

import json
import select
import signal
import socket
import sys

from tools.bench import frames
from tools.bench.lane import ConnectionEndedError, Lane

RECORD_BYTES = 1250
RECORDS_PER_PULL = 32
OPAQUE = b'"opaque":%d' % frames.OPAQUE_BASE
_PULL_KEY = b'"code":11,'


class CannedReply:
    """A reply as Apache's broker lays it out, but for its opaque."""

    def __init__(self, ext_fields: dict[str, str], body: bytes = b"") -> None:
        header = json.dumps(
            {
                "code": 0,
                "extFields": ext_fields,
                "flag": 1,
                "language": "JAVA",
                "opaque": frames.OPAQUE_BASE,
                "serializeTypeCurrentRPC": "JSON",
                "version": frames.VERSION_5_3_3,
            },
            separators=(",", ":"),
        ).encode()
        frame = frames.prefix(len(header), len(body)) + header + body
        at = frame.index(OPAQUE) + len(OPAQUE) - frames.OPAQUE_DIGITS
        self._before, self._after = frame[:at], frame[at + frames.OPAQUE_DIGITS :]

    def to(self, slot: int) -> bytes:
        """The whole frame."""
        return b"%b%d%b" % (self._before, frames.OPAQUE_BASE + slot, self._after)


SENT = CannedReply(
    {
        "MSG_REGION": "DefaultRegion",
        "TRACE_ON": "true",
        "msgId": "7F00000100002A9F0000000000000000",
        "queueId": "0",
        "queueOffset": "123456",
        "transactionId": "7F000001000000000000000000000000",
    }
)
PULLED = CannedReply(
    {"maxOffset": "100000", "minOffset": "0", "nextBeginOffset": "32", "suggestWhichBrokerId": "0"},
    body=(RECORD_BYTES.to_bytes(4, "big") + bytes(RECORD_BYTES - 4)) * RECORDS_PER_PULL,
)


def serve() -> None:
    """Accepts and answers until the process is told to end."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, select.epoll() as epoll:
        listener.setblocking(False)
        epoll.register(listener, select.EPOLLIN)
        lanes: dict[int, Lane] = {}
        address = "{}:{}".format(*listener.getsockname())
        print(json.dumps({"ready": True, "service": "null", "listeners": {"remoting": address}}), flush=True)
        while True:
            for fd, mask in epoll.poll():
                if fd == listener.fileno():
                    lane = accept(listener)
                    lanes[lane.socket.fileno()] = lane
                    epoll.register(lane.socket, select.EPOLLIN)
                elif not answer(lanes[fd], epoll, mask):
                    lanes.pop(fd).socket.close()


def accept(listener: socket.socket) -> Lane:
    """The next connection."""
    sock, _ = listener.accept()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Lane(sock, range(0))


def answer(lane: Lane, epoll: select.epoll, mask: int) -> bool:
    """Answers what has come; False when the client has closed the connection."""
    if mask & select.EPOLLOUT:
        lane.flush()
        if not lane.is_blocked:
            epoll.modify(lane.socket, select.EPOLLIN)
    try:
        if requests := lane.receive():
            lane.send([reply_to(lane.buffer, start, header_end) for start, header_end in requests])
    except ConnectionEndedError:
        return False
    if lane.is_blocked:
        epoll.modify(lane.socket, select.EPOLLIN | select.EPOLLOUT)
    return True


def reply_to(request: bytearray, start: int, header_end: int) -> bytes:
    """The canned reply for the request's kind and slot."""
    reply = PULLED if request.find(_PULL_KEY, start, header_end) >= 0 else SENT
    return reply.to(frames.slot_of(request, start, header_end))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve()
