"""Plain text and TLS on one port, in front of a door that takes only one of them per port.

The first byte of a connection tells which it is: 0x16 opens a TLS handshake, an HTTP/2 client opens with "PRI". The
connection is then spliced, bytes unseen, to one of two unix sockets of the door in a directory that only this user can
enter. Its local end is bound to a path of its own there, under which the door finds the real peer again.

    client ──▶ splice ──0x16──▶ unix socket "tls"    ──▶ door with the certificate
                  └────else───▶ unix socket "plain"  ──▶ door without

The price is a copy of every byte and about 100 µs of CPU a call (the record docs/adr/0012): only listeners with
tls.mode permissive pay it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import socket
import tempfile
from pathlib import Path
from typing import cast

from apogeemq.mesh.addresses import join_address
from apogeemq.mesh.network import Listening
from apogeemq.mesh.tls import ServerTls
from apogeemq.proxy.faces.grpc.port import Door, Handlers, LocalAddress, TcpAddress

FIRST_BYTE_S = 10.0
"""How long a new connection may say nothing. Clients of both kinds speak first."""

CONNECTIONS_MAX = 20_000

_BUFFER_BYTES_MAX = 256 * 1024
# Bytes that wait for one end before the other is not read any more.

_TLS_HANDSHAKE = 0x16

_log = logging.getLogger(__name__)


async def serve_plain_and_tls(
    door: Door, address: TcpAddress, handlers: Handlers, *, tls: ServerTls, connections_max: int = CONNECTIONS_MAX
) -> Listening:
    """Serve `handlers` on one port to clients of both kinds. Raises OSError when the address cannot be bound."""
    splice = _Splice(connections_max)
    try:
        await splice.open_doors(door, handlers, tls)
        await splice.listen(address)
    except BaseException:
        await splice.stop(0.0)
        raise
    return splice


class _Splice:
    """The public port, the two doors behind it, and the connections between."""

    def __init__(self, connections_max: int) -> None:
        self.host = ""
        self.port = 0
        self._connections_max = connections_max
        self._directory = Path(tempfile.mkdtemp(prefix="apogeemq-"))
        self._doors: list[Listening] = []
        self._listener: asyncio.Server | None = None
        self._peers: dict[str, str] = {}
        self._connections: set[_Connection] = set()
        self._numbers = itertools.count()

    async def open_doors(self, door: Door, handlers: Handlers, tls: ServerTls) -> None:
        """Let the door serve behind both unix sockets."""
        for name, material in (("plain", None), ("tls", tls)):
            address = LocalAddress(str(self._directory / name), self._peer_of)
            self._doors.append(await door.serve(address, handlers, tls=material))

    async def listen(self, address: TcpAddress) -> None:
        """Take connections."""
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), address.host or None, address.port
        )
        self.host, self.port = self._listener.sockets[0].getsockname()[:2]

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, let the doors end their calls, then cut what is left. Idempotent."""
        if self._listener is not None:
            self._listener.close()
        doors, self._doors = self._doors, []
        await asyncio.gather(*(door.stop(grace_s) for door in doors))
        for connection in list(self._connections):
            connection.cut("the proxy stops")
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def admit(self, connection: _Connection) -> bool:
        """Count a new connection; False when there are too many."""
        if len(self._connections) >= self._connections_max:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """A connection is over."""
        self._connections.discard(connection)
        self._peers.pop(connection.local_path, None)

    async def connect(self, connection: _Connection, first_byte: int) -> asyncio.Transport:
        """Open the way to the door that speaks what the first byte announces. Raises OSError."""
        name = "tls" if first_byte == _TLS_HANDSHAKE else "plain"
        local_path = str(self._directory / f"c{next(self._numbers)}")
        end = _connect(local_path, str(self._directory / name))
        connection.local_path = local_path
        self._peers[local_path] = connection.peer
        try:
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: _Inner(connection), sock=end)
        except BaseException:
            end.close()
            raise
        return transport

    def _peer_of(self, local_path: str) -> str:
        return self._peers.get(local_path, f"unix:{local_path}")


class _Connection(asyncio.Protocol):
    """A client's end of a spliced connection; `_Inner` is the door's."""

    def __init__(self, splice: _Splice) -> None:
        self.peer = ""
        self.local_path = ""
        self._splice = splice
        self._client: asyncio.Transport | None = None
        self._door: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._first_byte_timer: asyncio.TimerHandle | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._client = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = join_address(peer[0], peer[1]) if peer else "unknown"
        if not self._splice.admit(self):
            _log.warning("refused a connection of %s: there are as many as limits.connections_max allows", self.peer)
            self._client.abort()
            return
        self._client.set_write_buffer_limits(high=_BUFFER_BYTES_MAX)
        loop = asyncio.get_running_loop()
        self._first_byte_timer = loop.call_later(FIRST_BYTE_S, self.cut, "it said nothing in time")

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; the first ones choose the door."""
        if self._door is not None:
            self._door.write(data)
            return
        self._early.append(data)
        if self._connecting is None and self._client is not None:
            if self._first_byte_timer is not None:
                self._first_byte_timer.cancel()
            self._client.pause_reading()
            self._connecting = asyncio.create_task(self._connect(data[0]))

    def eof_received(self) -> bool:
        """The client sends no more: nor does a gRPC client read then, so both ends are closed once flushed."""
        if self._door is not None:
            self._door.close()
        return False

    def pause_writing(self) -> None:
        """The client does not read."""
        if self._door is not None:
            self._door.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self._door is not None and not self._door.is_closing():
            self._door.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._client = None
        self._end()

    async def _connect(self, first_byte: int) -> None:
        try:
            door = await self._splice.connect(self, first_byte)
        except OSError as error:
            _log.warning("cannot pass a connection of %s on to the door: %s", self.peer, error)
            self.cut("there is no way to the door")
            return
        if self._client is None or self._client.is_closing():
            door.abort()
            return
        self._door = door
        door.set_write_buffer_limits(high=_BUFFER_BYTES_MAX)
        for data in self._early:
            door.write(data)
        self._early.clear()
        self._client.resume_reading()

    # -- the door's end

    def from_door(self, data: bytes) -> None:
        """Pass bytes on to the client."""
        if self._client is not None:
            self._client.write(data)

    def door_paused(self, is_paused: bool) -> None:
        """The door does not read, or does again."""
        if self._client is not None and not self._client.is_closing():
            if is_paused:
                self._client.pause_reading()
            else:
                self._client.resume_reading()

    def door_lost(self) -> None:
        """The door closed: what it said last still reaches the client."""
        self._door = None
        if self._client is not None:
            self._client.close()

    def cut(self, reason: str) -> None:
        """End both ends at once."""
        _log.debug("connection of %s cut: %s", self.peer, reason)
        if self._client is not None:
            self._client.abort()
        self._end()

    def _end(self) -> None:
        if self._first_byte_timer is not None:
            self._first_byte_timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._door is not None:
            self._door.close()
        self._splice.forget(self)


class _Inner(asyncio.Protocol):
    """The door's end of a spliced connection."""

    def __init__(self, outer: _Connection) -> None:
        self._outer = outer

    def data_received(self, data: bytes) -> None:
        """The door says something."""
        self._outer.from_door(data)

    def pause_writing(self) -> None:
        """It does not read."""
        self._outer.door_paused(True)

    def resume_writing(self) -> None:
        """It does again."""
        self._outer.door_paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """It closed the connection."""
        self._outer.door_lost()


def _connect(local_path: str, path: str) -> socket.socket:
    """Connect to a unix socket from an end that has a name. Raises OSError, also when too many wait there already."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.setblocking(False)
    try:
        end.bind(local_path)
        try:
            end.connect(path)
        finally:
            Path(local_path).unlink()  # the name stays with the socket
    except OSError:
        end.close()
        raise
    return end
