"""Where settings come from: files (TOML, Java properties), environment and flags, each as a list of raw settings.

Nothing here knows which settings exist.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from apogeemq.mesh.errors import ConfigError

FILE_SIZE_BYTES_MAX = 1024 * 1024


class RawSetting(NamedTuple):
    """One setting as found: the key as written, the value (text, or what TOML gave), and where it was found."""

    key: str
    value: object
    origin: str


# A Kubernetes service named like our variables' prefix puts such names in every pod's environment.
_KUBERNETES_SERVICE = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?")


def read_file(path: Path) -> list[RawSetting]:
    """Read a settings file: TOML when its name ends in .toml, else Java properties (.properties, .conf, …)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > FILE_SIZE_BYTES_MAX:
        raise ConfigError(str(path), f"has {len(data)} bytes, more than {FILE_SIZE_BYTES_MAX}")
    if path.suffix == ".toml":
        return list(_read_toml(path, data))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # what Java reads properties as
    return [RawSetting(key, value, f"file {path}:{line_number}") for line_number, key, value in parse_properties(text)]


def _read_toml(path: Path, data: bytes) -> Iterator[RawSetting]:
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is no TOML: {error}") from error
    for key, value in flatten("", table):
        yield RawSetting(key, value, f"file {path}, key {key}")


def flatten(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Every value of nested tables with its dotted key behind `prefix`, in the order of the file."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flatten(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def read_environment(environ: Mapping[str, str], prefix: str) -> list[RawSetting]:
    """Take the variables whose name begins with `prefix`, without those that Kubernetes makes for services.

    The key is the variable's whole name.
    """
    return [
        RawSetting(name, value, f"environment {name}")
        for name, value in sorted(environ.items())
        if name.startswith(prefix) and not _KUBERNETES_SERVICE.fullmatch(name.removeprefix(prefix))
    ]


def read_flags(flags: Mapping[str, str]) -> list[RawSetting]:
    """Take what the command line set."""
    return [RawSetting(key, value, f"flag --set {key}") for key, value in flags.items()]


def parse_set_flags(arguments: Iterable[str]) -> dict[str, str]:
    """Split the arguments of `--set KEY=VALUE`; a later one wins. Raises ConfigError for one without "="."""
    flags: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {argument}", "is not of the form KEY=VALUE")
        flags[key.strip()] = value.strip()
    return flags


_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(text: str) -> Iterator[tuple[int, str, str]]:
    """Parse Java properties into (line number, key, value), in order.

    As java.util.Properties.load: comments begin with # or !; key and value are divided by =, : or white space; a line
    that ends in an odd number of backslashes goes on in the next; \\t \\n \\r \\f \\uXXXX and \\any-character.
    """
    for line_number, line in _logical_lines(text):
        end = _key_end(line)
        value = line[end:].lstrip(" \t\f")
        if value[:1] in ("=", ":"):
            value = value[1:].lstrip(" \t\f")
        yield line_number, _unescape(line[:end], line_number), _unescape(value, line_number)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continued lines; drop blank ones and comments. The number is that of the first line."""
    joined, start = "", 0
    for line_number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = raw.lstrip(" \t\f")
        if not joined:
            if not line or line[0] in "#!":
                continue
            start = line_number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            joined += line[:-1]
            continue
        yield start, joined + line
        joined = ""
    if joined:
        yield start, joined


def _key_end(line: str) -> int:
    position = 0
    while position < len(line) and line[position] not in "=: \t\f":
        position += 2 if line[position] == "\\" else 1
    return min(position, len(line))


def _unescape(text: str, line_number: int) -> str:
    if "\\" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        code, character = match.groups()
        if code is not None:
            return chr(int(code, 16))
        if character == "u":
            raise ConfigError(f"line {line_number}", "\\u must be followed by four hexadecimal digits")
        return _ESCAPES.get(character, character)

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", one, text)
