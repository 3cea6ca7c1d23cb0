"""What can be set: the fields of nested msgspec structs, their names, and how text becomes their values."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from apogeemq.mesh.config_sources import RawSetting
from apogeemq.mesh.errors import ConfigError

MASK = "******"
"""Shown in the place of a secret."""

_EXTRA_KEY = "apogeemq"


@dataclass(frozen=True, slots=True)
class Alias:
    """A RocketMQ property name. When its value has another unit or form than our setting's, `parse` translates.

    `parse` makes our value of the property's text; the message of a ValueError it raises says what is allowed.
    """

    name: str
    parse: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class _Extra:
    aliases: tuple[Alias, ...] = ()
    inside: tuple[tuple[str, Alias], ...] = ()
    environment: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One setting: its dotted key, its type with ranges, and its other names."""

    key: str
    type: Any
    aliases: tuple[Alias, ...]
    environment: tuple[str, ...]
    secret: bool


def setting(
    *aliases: str | Alias,
    inside: Mapping[str, str] | None = None,
    environment: Sequence[str] = (),
    secret: bool = False,
) -> msgspec.Meta:
    """Annotate a field: `Annotated[int, setting("listenPort")]`.

    aliases: RocketMQ's names for this setting.
    inside: on a section, RocketMQ's names for settings in it, by their key relative to the section.
    environment: further variables that set it, such as NAMESRV_ADDR; the prefixed one wins over them.
    secret: the value is masked wherever settings or errors are shown.
    """
    extra = _Extra(
        tuple(alias if isinstance(alias, Alias) else Alias(alias) for alias in aliases),
        tuple((key, Alias(name)) for name, key in (inside or {}).items()),
        tuple(environment),
        secret,
    )
    return msgspec.Meta(extra={_EXTRA_KEY: extra})


def fields_of(section_type: type[msgspec.Struct]) -> Iterator[Field]:
    """Walk all settings of a section and of the sections in it, in the order they are declared."""
    return _walk(section_type, "", ())


def _walk(section_type: type[msgspec.Struct], prefix: str, inside: tuple[tuple[str, Alias], ...]) -> Iterator[Field]:
    for name, annotation in typing.get_type_hints(section_type, include_extras=True).items():
        key = prefix + name
        extra = _extra_of(annotation)
        outer = _below(name, inside)
        inner_section = section_of(annotation)
        if inner_section is not None:
            yield from _walk(inner_section, key + ".", extra.inside + outer)
        else:
            aliases = extra.aliases + tuple(alias for rest, alias in outer if not rest)
            yield Field(key, annotation, aliases, extra.environment, extra.secret)


def _below(name: str, inside: tuple[tuple[str, Alias], ...]) -> tuple[tuple[str, Alias], ...]:
    """Keep the aliases for `name` or for what is in it, by the key relative to it ("" for itself)."""
    return tuple(
        (key.removeprefix(name).removeprefix("."), alias) for key, alias in inside if f"{key}.".startswith(f"{name}.")
    )


def section_of(annotation: Any) -> type[msgspec.Struct] | None:  # noqa: ANN401 — a type annotation
    """Return the section type that a field holds, None for a plain value."""
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, msgspec.Struct) else None


def convert(field: Field, raw: RawSetting, alias: Alias | None) -> object:
    """Turn what was found into the field's value; raises ConfigError that says what is allowed.

    Text becomes numbers, booleans, enumeration values; a list's items are divided by ; or a comma; an empty text is
    None where None is allowed.
    """
    value = raw.value
    try:
        if isinstance(value, str):
            if alias is not None and alias.parse is not None:
                value = alias.parse(value)
            else:
                return msgspec.convert(_split(field.type, value), field.type, strict=False)
        return msgspec.convert(value, field.type)
    except ValueError as error:  # msgspec's ValidationError is one
        shown = MASK if field.secret else repr(raw.value)
        name = field.key if raw.key == field.key else f"{raw.key} ({field.key})"
        problem = f"is {shown}; allowed is {allowed(field.type)}"
        if not isinstance(error, msgspec.ValidationError):
            problem = f"is {shown}: {error}"
        raise ConfigError(name, problem, origin=raw.origin) from error


def _split(annotation: Any, text: str) -> object:  # noqa: ANN401 — a type annotation
    """Shape text for a list type or an optional one."""
    bare = _bare(annotation)
    if typing.get_origin(bare) in (tuple, list, frozenset):
        return [item.strip() for item in text.replace(",", ";").split(";") if item.strip()]
    if not text and type(None) in typing.get_args(bare):
        return None
    return text


def allowed(annotation: Any) -> str:  # noqa: ANN401 — a type annotation
    """Say in words what values a field takes."""
    bare = _bare(annotation)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return " | ".join(str(member.value) for member in bare)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("nothing" if one is type(None) else allowed(one) for one in arguments)
    if origin in (tuple, list, frozenset):
        return f"a list, divided by ';', of {allowed(arguments[0])}"
    words = {int: "a whole number", float: "a number", bool: "true | false", str: "text"}
    return words.get(bare, str(bare)) + _range_words(annotation)


def _range_words(annotation: Any) -> str:  # noqa: ANN401 — a type annotation
    limits = {
        "ge": "from {}",
        "gt": "above {}",
        "le": "to {}",
        "lt": "below {}",
        "multiple_of": "in steps of {}",
        "min_length": "of at least {} characters",
        "max_length": "of at most {} characters",
        "pattern": "that matches {}",
    }
    said = [
        words.format(getattr(meta, name))
        for name, words in limits.items()
        for meta in _metas(annotation)
        if getattr(meta, name) is not None
    ]
    return "".join(f" {words}" for words in said)


def _bare(annotation: Any) -> Any:  # noqa: ANN401 — a type annotation
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _metas(annotation: Any) -> list[msgspec.Meta]:  # noqa: ANN401 — a type annotation
    if typing.get_origin(annotation) is not Annotated:
        return []
    return [meta for meta in typing.get_args(annotation)[1:] if isinstance(meta, msgspec.Meta)]


def _extra_of(annotation: Any) -> _Extra:  # noqa: ANN401 — a type annotation
    for meta in _metas(annotation):
        if meta.extra and _EXTRA_KEY in meta.extra:
            extra: _Extra = meta.extra[_EXTRA_KEY]
            return extra
    return _Extra()
