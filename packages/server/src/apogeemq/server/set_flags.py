"""`--set PREFIX.KEY=VALUE` of several services, divided by whom each is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apogeemq.mesh.errors import ConfigError


def divided(flags: Mapping[str, str], prefixes: Iterable[str], *, known: str) -> dict[str, dict[str, str]]:
    """Give each prefix its settings, none where it has none.

    Raises ConfigError for a key that does not begin with one of them; `known` says in its words what they are.
    """
    by_prefix: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    for key, value in flags.items():
        prefix, dot, rest = key.partition(".")
        if not dot or prefix not in by_prefix:
            raise ConfigError(key, f"does not begin with {known}", origin="--set")
        by_prefix[prefix][rest] = value
    return by_prefix
