"""A client's Telemetry stream to one access point: who the client is goes out, settings and commands come in.

```
        start()                    settings written            server's settings read
closed ────────▶ opening ────────▶ introduced ────────────────▶ ready ──┐ stream ends or breaks
                    ▲                                                    │
                    └──────────── back-off of 1 s with jitter ◀──────────┘
```
The client's settings are the first thing on every stream, before any other call uses the access point. They are sent
again when they change, when the server forgot them, and every 5 minutes (client.py).
Source: apache/rocketmq-clients ClientSessionImpl; reference of the public API, Telemetry and settings.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from apogeemq.client_api.errors import ClientError, ConnectionBroken, StartFailed
from apogeemq.client_grpc.clock import Clock, within
from apogeemq.client_grpc.core.status import code_name, is_fine
from apogeemq.client_grpc.link import TelemetryStream
from apogeemq.proto.v2 import definition_pb2, service_pb2

TelemetryCommand = service_pb2.TelemetryCommand
Settings = definition_pb2.Settings

SETTINGS_TIMEOUT_S: Final = 3.0
REOPEN_S: Final = 1.0
COMMANDS_AT_ONCE_MAX: Final = 16
COMMAND_WAIT_S: Final = 30.0

_log = logging.getLogger(__name__)


class Session:
    """Holds one stream open until it is closed.

    Args:
        name: the access point, for log lines and errors.
        open_stream: opens a stream; must not wait.
        describe: the client's settings as they are now.
        on_settings: takes the server's settings, each time they come.
        on_command: answers a command of the server's, or None where there is nothing to answer.
        jitter: a number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        name: str,
        *,
        open_stream: Callable[[], TelemetryStream],
        describe: Callable[[], Settings],
        on_settings: Callable[[Settings], None],
        on_command: Callable[[TelemetryCommand], Awaitable[TelemetryCommand | None]],
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self._name = name
        self._open_stream = open_stream
        self._describe = describe
        self._on_settings = on_settings
        self._on_command = on_command
        self._clock = clock
        self._jitter = jitter
        self._stream: TelemetryStream | None = None
        self._writing = asyncio.Lock()
        self._ready = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self._commands: set[asyncio.Task[None]] = set()
        self._last_error: ClientError | None = None

    @property
    def ready(self) -> bool:
        """The stream is open and the server has answered the settings."""
        return self._ready.is_set()

    async def start(self) -> None:
        """Open the stream and wait for the server's settings. Raises StartFailed after 3 s; the cause says more."""
        self.hold()
        try:
            await within(self._clock, SETTINGS_TIMEOUT_S, self._wait_ready())
        except TimeoutError:
            await self.close()
            raise StartFailed(
                f"the proxy at {self._name} sent no settings within {SETTINGS_TIMEOUT_S:g} s"
                + (f": {self._last_error.text}" if self._last_error else ""),
                broker=self._name,
                elapsed_s=SETTINGS_TIMEOUT_S,
                hint="Check the address, that a RocketMQ proxy's gRPC listener is there, and TLS or not alike.",
            ) from self._last_error

    def hold(self) -> None:
        """Open the stream and keep it open, without waiting for it."""
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold(), name=f"telemetry {self._name}")

    async def wait_ready(self, timeout_s: float) -> None:
        """Until the session is ready. Raises ConnectionBroken."""
        if self._ready.is_set():
            return
        try:
            await within(self._clock, timeout_s, self._wait_ready())
        except TimeoutError:
            raise ConnectionBroken(
                f"no session with the proxy at {self._name}"
                + (f": {self._last_error.text}" if self._last_error else ""),
                broker=self._name,
                elapsed_s=timeout_s,
                hint="It is tried again every second.",
            ) from self._last_error

    async def introduce(self) -> None:
        """Send the client's settings (again). Does nothing while the stream is down: they go out when it opens."""
        await self._write(TelemetryCommand(settings=self._describe()))

    async def close(self) -> None:
        """End the stream and everything that works for it."""
        tasks = [task for task in (self._holding, *self._commands) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._holding = None
        self._ready.clear()

    async def _wait_ready(self) -> None:
        await self._ready.wait()

    async def _hold(self) -> None:
        while True:
            try:
                await self._one_stream()
            except ClientError as error:
                self._last_error = error
                _log.info("the Telemetry stream to %s broke: %s", self._name, error)
            except Exception:  # noqa: BLE001 — whatever a server sends, the client has to come back to it
                _log.exception("the Telemetry stream to %s was given up", self._name)
            finally:
                self._ready.clear()
            await self._clock.sleep(REOPEN_S * (1 + self._jitter() / 2))

    async def _one_stream(self) -> None:
        stream = self._stream = self._open_stream()
        try:
            await self.introduce()
            while (command := await stream.read()) is not None:
                await self._take(command)
            raise ConnectionBroken(f"the proxy at {self._name} ended the Telemetry stream")
        finally:
            self._stream = None
            stream.cancel()

    async def _take(self, command: TelemetryCommand) -> None:
        if command.WhichOneof("command") == "settings":
            if command.HasField("status") and not is_fine(command.status):
                raise ConnectionBroken(
                    f"the proxy at {self._name} refused the settings: {code_name(command.status.code)}: "
                    f"{command.status.message}",
                    code=command.status.code,
                )
            self._on_settings(command.settings)
            self._ready.set()
            return
        if not await self._has_room():
            _log.warning("the proxy at %s sends commands faster than they are answered: one is dropped", self._name)
            return
        task = asyncio.create_task(self._answer(command), name=f"command of {self._name}")
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _has_room(self) -> bool:
        """Wait until another command may be worked on; False when that takes too long.

        Meanwhile nothing is read, so that the server sees how busy this client is, and asks another one.
        """
        if len(self._commands) >= COMMANDS_AT_ONCE_MAX:
            ended = asyncio.wait(set(self._commands), return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(TimeoutError):
                await within(self._clock, COMMAND_WAIT_S, ended)
        return len(self._commands) < COMMANDS_AT_ONCE_MAX

    async def _answer(self, command: TelemetryCommand) -> None:
        """Work on one command apart from the stream, which must stay readable meanwhile."""
        try:
            answer = await self._on_command(command)
            if answer is not None:
                await self._write(answer)
        except ClientError as error:
            _log.warning("a command of the proxy at %s stays unanswered: %s", self._name, error)
        except Exception:  # noqa: BLE001 — whatever a command stirs up, the stream has to live on
            _log.exception("a command of the proxy at %s could not be answered", self._name)

    async def _write(self, command: TelemetryCommand) -> None:
        async with self._writing:  # a gRPC stream takes one write at a time
            if self._stream is not None:
                await self._stream.write(command)
