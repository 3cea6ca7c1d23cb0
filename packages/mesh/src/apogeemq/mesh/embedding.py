"""Services inside another service's process, found by the entry-point group `apogeemq.embeddable`.

A wheel that can be embedded declares a factory under its service's name; whoever embeds it asks by that name and never
imports the service:

    [project.entry-points."apogeemq.embeddable"]
    broker = "apogeemq.broker.app:embed"
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol, cast, overload

from apogeemq.mesh.calls import CallTable
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.service_process import World

GROUP = "apogeemq.embeddable"


class EmbeddedService(Protocol):
    """A service in this process."""

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where each started listener is reached: name → "host:port"."""
        ...

    def join(self, lifecycle: Lifecycle) -> None:
        """Add what starts and stops to the process's lifecycle."""
        ...


class EmbeddedBroker(EmbeddedService, Protocol):
    """A broker in this process."""

    @property
    def name(self) -> str:
        """What routes call it."""
        ...

    @property
    def calls(self) -> CallTable:
        """What it answers, once it is started."""
        ...


EmbeddableFactory = Callable[[Path | None, Mapping[str, str], Mapping[str, str], World], EmbeddedService]
"""(settings file or None, environment, settings that go over both, world) → the service. Raises ConfigError."""

BrokerFactory = Callable[[Path | None, Mapping[str, str], Mapping[str, str], World], EmbeddedBroker]
"""Likewise, of a broker."""


@overload
def find_embeddable(service: Literal["broker"], *, asked_by: str) -> BrokerFactory: ...


@overload
def find_embeddable(service: Literal["controller"], *, asked_by: str) -> EmbeddableFactory: ...


def find_embeddable(service: str, *, asked_by: str) -> EmbeddableFactory:
    """Find the factory of a service; ConfigError names the setting that asks for it and the wheel to install."""
    found = [point for point in importlib.metadata.entry_points(group=GROUP) if point.name == service]
    if not found:
        raise ConfigError(asked_by, f"needs a {service} in this process: install the wheel apogeemq-{service}")
    return cast("EmbeddableFactory", found[0].load())
