"""Settings: frozen msgspec structs in sections, filled from defaults < file < environment < flags.

    class Limits(msgspec.Struct, frozen=True, kw_only=True):
        idle_s: Annotated[int, msgspec.Meta(ge=1), setting("serverChannelMaxIdleTimeSeconds")] = 120

    class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
        cluster_name: Annotated[str, setting("brokerClusterName")] = "DefaultCluster"
        remoting: Annotated[ListenerConfig, setting(inside={"listenPort": "port"})] = ListenerConfig(port=10911)
        limits: Limits = Limits()

    loaded = load(BrokerConfig, file=Path("broker.conf"), environ=os.environ, prefix="APOGEEMQ_BROKER_", flags={})
    loaded.value.limits.idle_s          # 120
    loaded.origins["limits.idle_s"]     # "file broker.conf:7"

One setting has these names:
    limits.idle_s                       its key: in TOML as tables, in properties and after --set with dots
    serverChannelMaxIdleTimeSeconds     its aliases: RocketMQ's own property names, in files and after --set
    APOGEEMQ_BROKER_LIMITS_IDLE_S       its environment variable: prefix and key, upper case, dots as underscores

A section may have `validate(self) -> None`, which raises ValueError for values that do not go together; it is called
after all ranges were checked, inner sections first.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar, cast, get_type_hints

import msgspec
from apogeemq.mesh.config_fields import MASK, Alias, Field, convert, fields_of, section_of, setting
from apogeemq.mesh.config_sources import RawSetting, flatten, parse_set_flags, read_environment, read_file, read_flags
from apogeemq.mesh.errors import ConfigError

__all__ = [
    "Alias",
    "ConfigError",
    "ListenerConfig",
    "Loaded",
    "RawSetting",
    "TlsConfig",
    "flatten",
    "known_aliases",
    "load",
    "parse_set_flags",
    "setting",
]

SectionT = TypeVar("SectionT", bound=msgspec.Struct)


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """TLS of one listener. All paths are of PEM files and read at start.

    disabled: plain text only. permissive: both on one port, told apart by the first byte (Remoting listeners only).
    enforcing: TLS only. With `client_ca_path` set, clients must show a certificate that it signed.
    """

    mode: Literal["disabled", "permissive", "enforcing"] = "disabled"
    cert_path: str | None = None
    key_path: str | None = None
    client_ca_path: str | None = None

    def validate(self) -> None:
        """Raise ValueError when TLS is on and a path is missing or names no file."""
        if self.mode == "disabled":
            return
        if self.cert_path is None or self.key_path is None:
            raise ValueError(f"mode {self.mode} needs cert_path and key_path")
        for path in (self.cert_path, self.key_path, self.client_ca_path):
            if path is not None and not Path(path).is_file():
                raise ValueError(f"there is no file {path}")


class ListenerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where one listener binds, and under which address others are told to reach it.

    `port` 0 takes a free one. An empty `advertised_host` means the bound host, or, when that is a wildcard, the address
    of the interface that leads outside; names are allowed. `advertised_port` 0 means the bound port.
    """

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 — as Java's bindAddress; a start without ACL or TLS says so
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    advertised_host: str = ""
    advertised_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    tls: TlsConfig = TlsConfig()


@dataclass(frozen=True, slots=True)
class Loaded(Generic[SectionT]):
    """Settings, with the place that each value came from ("default" for most).

    `ignored` says which names without effect were found, and where.
    """

    value: SectionT
    origins: Mapping[str, str]
    ignored: Sequence[str] = ()
    secrets: frozenset[str] = frozenset()

    def describe(self) -> list[str]:
        """List every setting as "key = value  (origin)", secrets masked."""
        return [
            f"{key} = {MASK if key in self.secrets and value else _shown(value)}  ({self.origins[key]})"
            for key, value in _values(self.value, "")
        ]

    def changes(self) -> dict[str, str]:
        """Map the key of every setting that differs from its struct's own default to its value as text, secrets too.

        For whoever starts this service in a process of its own: handed over, they make the same settings again.
        """
        own = dict(_own_defaults(type(self.value), None, ""))
        return {key: _shown(value) for key, value in _values(self.value, "") if key not in own or value != own[key]}

    def secret_values(self) -> list[str]:
        """List the secrets that are set, for whoever must keep them out of logs."""
        return [str(value) for key, value in _values(self.value, "") if key in self.secrets and value]


def load(
    section_type: type[SectionT],
    *,
    file: Path | None = None,
    around: Sequence[Sequence[RawSetting]] = (),
    environ: Mapping[str, str] | None = None,
    prefix: str = "",
    flags: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
    defaults: SectionT | None = None,
) -> Loaded[SectionT]:
    """Fill `section_type`; raises ConfigError for the first thing wrong.

    `around` are sources over the file, a later one over an earlier: what a file around this service says of it.

    A name that nobody knows is an error, in the environment too when it begins with `prefix`. `ignored` are names
    accepted without effect, such as RocketMQ properties that have no meaning here: so an official file loads.
    `defaults` stand in for the struct's own, for whoever embeds a service.
    """
    names = _Names(section_type, prefix, ignored)
    chosen: dict[str, object] = {}
    origins = dict.fromkeys(names.fields, "default")
    found_ignored: list[str] = []
    for source in (
        read_file(file) if file is not None else [],
        *around,
        names.from_environment(environ or {}),
        read_flags(flags or {}),
    ):
        for raw, field_, alias in names.resolve(source, found_ignored):
            chosen[field_.key] = convert(field_, raw, alias)
            origins[field_.key] = raw.origin
    value = _build(section_type, defaults, "", chosen)
    secrets = frozenset(key for key, field_ in names.fields.items() if field_.secret)
    return Loaded(value, origins, found_ignored, secrets)


def known_aliases(section_type: type[msgspec.Struct]) -> dict[str, str]:
    """Map every RocketMQ property name that a configuration accepts to our key."""
    return {alias.name: field_.key for field_ in fields_of(section_type) for alias in field_.aliases}


class _Names:
    """All names by which the settings of a configuration can be called."""

    def __init__(self, section_type: type[msgspec.Struct], prefix: str, ignored: Collection[str]) -> None:
        self.fields = {field_.key: field_ for field_ in fields_of(section_type)}
        self._prefix = prefix
        self._ignored = ignored
        self._by_name: dict[str, tuple[Field, Alias | None]] = {}
        for field_ in self.fields.values():
            self._by_name[field_.key] = (field_, None)
            for alias in field_.aliases:
                other = self._by_name.setdefault(alias.name, (field_, alias))[0]
                assert other is field_, f"alias {alias.name} of both {other.key} and {field_.key}"
        self._variables = {prefix + field_.key.replace(".", "_").upper(): field_ for field_ in self.fields.values()}

    def from_environment(self, environ: Mapping[str, str]) -> list[RawSetting]:
        """Find the variables that set something; those known by a name of their own come first, so that they yield."""
        own = [
            RawSetting(field_.key, environ[name], f"environment {name}")
            for field_ in self.fields.values()
            for name in reversed(field_.environment)
            if environ.get(name)
        ]
        if not self._prefix:
            return own
        return own + [self._keyed(raw) for raw in read_environment(environ, self._prefix)]

    def resolve(
        self, source: Iterable[RawSetting], found_ignored: list[str]
    ) -> Iterator[tuple[RawSetting, Field, Alias | None]]:
        """Find the field of each raw setting. Names two of which mean the same must not both be in one source."""
        used: dict[str, RawSetting] = {}
        for raw in source:
            if raw.key not in self._by_name and raw.key in self._ignored:
                found_ignored.append(f"{raw.key} ({raw.origin})")
                continue
            field_, alias = self._known(raw, raw.key)
            earlier = used.setdefault(field_.key, raw)
            if earlier.key != raw.key:
                raise ConfigError(raw.key, f"means the same as {earlier.key}; {earlier.origin}", origin=raw.origin)
            yield raw, field_, alias

    def _keyed(self, raw: RawSetting) -> RawSetting:
        field_ = self._variables.get(raw.key)
        if field_ is None:
            raise ConfigError(raw.key, "is not known", origin="environment", nearest=_nearest(raw.key, self._variables))
        return raw._replace(key=field_.key)

    def _known(self, raw: RawSetting, name: str) -> tuple[Field, Alias | None]:
        try:
            return self._by_name[name]
        except KeyError:
            nearest = _nearest(name, self._by_name)
            raise ConfigError(name, "is not known", origin=raw.origin, nearest=nearest) from None


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that looks most like `name`, whatever the case."""
    by_lower = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if not matches:  # perhaps only the last part was meant
        by_last = {one.rpartition(".")[2]: one for one in by_lower}
        matches = [by_last[last] for last in difflib.get_close_matches(name.lower(), by_last, n=1, cutoff=0.75)]
    return by_lower[matches[0]] if matches else None


def _build(
    section_type: type[SectionT], default: SectionT | None, prefix: str, chosen: Mapping[str, object]
) -> SectionT:
    """Make a section of the chosen values, and of the section's own or the outer section's defaults."""
    defaults = _defaults(section_type) if default is None else msgspec.structs.asdict(default)
    values: dict[str, object] = {}
    for name, annotation in get_type_hints(section_type, include_extras=True).items():
        key = prefix + name
        inner = section_of(annotation)
        if inner is not None:
            values[name] = _build(inner, defaults.get(name), key + ".", chosen)
        elif key in chosen:
            values[name] = chosen[key]
        elif name in defaults:
            values[name] = defaults[name]
        else:
            raise ConfigError(key, "must be set: it has no default")
    section = section_type(**values)
    validate = getattr(section, "validate", None)
    if validate is not None:
        try:
            validate()
        except ValueError as error:
            raise ConfigError(prefix.rstrip(".") or section_type.__name__, str(error)) from error
    return section


def _defaults(section_type: type[msgspec.Struct]) -> dict[str, object]:
    defaults: dict[str, object] = {}
    for info in msgspec.structs.fields(section_type):
        if info.default is not msgspec.NODEFAULT:
            defaults[info.name] = info.default
        elif info.default_factory is not msgspec.NODEFAULT:
            defaults[info.name] = info.default_factory()
    return defaults


def _own_defaults(
    section_type: type[msgspec.Struct], default: msgspec.Struct | None, prefix: str
) -> Iterator[tuple[str, object]]:
    """Walk the defaults of a section, which those of the section around it may have changed, as `_build` does."""
    defaults = _defaults(section_type) if default is None else msgspec.structs.asdict(default)
    for name, annotation in get_type_hints(section_type, include_extras=True).items():
        inner = section_of(annotation)
        if inner is not None:
            yield from _own_defaults(inner, cast("msgspec.Struct | None", defaults.get(name)), f"{prefix}{name}.")
        elif name in defaults:
            yield prefix + name, defaults[name]


def _values(section: msgspec.Struct, prefix: str) -> Iterator[tuple[str, object]]:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: object) -> str:
    """Show a value as it could be written after --set."""
    builtin = msgspec.to_builtins(value)
    if isinstance(builtin, (list, tuple)):
        return ";".join(map(str, builtin))
    if isinstance(builtin, bool):
        return str(builtin).lower()
    return "" if builtin is None else str(builtin)
