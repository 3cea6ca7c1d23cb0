"""Raw settings from files, environment and flags."""

from __future__ import annotations

from pathlib import Path

import pytest
from apogeemq.mesh.config_sources import parse_properties, parse_set_flags, read_environment, read_file
from apogeemq.mesh.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

JAVA_EXAMPLES = [
    # The examples of the java.util.Properties.load documentation.
    ("Truth = Beauty", "Truth", "Beauty"),
    (" Truth:Beauty", "Truth", "Beauty"),
    ("Truth                    :Beauty", "Truth", "Beauty"),
    ("cheeses", "cheeses", ""),
    ("fruits apple, banana", "fruits", "apple, banana"),
    # The rules it states.
    (r"\:\=", ":=", ""),
    (r"a\ key = v", "a key", "v"),
    (r"path=c:\\temp\\x", "path", r"c:\temp\x"),
    (r"tab=a\tb\nc", "tab", "a\tb\nc"),
    (r"umlaut=\u00fc", "umlaut", "ü"),
    (r"other=\z", "other", "z"),
    ("k==v", "k", "=v"),
    ("k = v  ", "k", "v  "),
]


@pytest.mark.parametrize(("line", "key", "value"), JAVA_EXAMPLES)
def test_properties_lines_mean_what_they_mean_in_java(line: str, key: str, value: str) -> None:
    """Keys, separators and escapes follow java.util.Properties."""
    assert list(parse_properties(line)) == [(1, key, value)]


def test_continued_lines_comments_and_line_numbers() -> None:
    """A trailing backslash joins lines without the indent; comments and blank lines count but hold nothing."""
    text = "# a comment\n! another \\\n\nfruits = apple, \\\n    banana, \\\n    pear\r\nnext=1\n  \\\n"
    assert list(parse_properties(text)) == [(4, "fruits", "apple, banana, pear"), (7, "next", "1")]


def test_two_backslashes_at_the_end_are_one_backslash() -> None:
    """Only an odd number of backslashes joins lines."""
    assert list(parse_properties("a=x\\\\\nb=y")) == [(1, "a", "x\\"), (2, "b", "y")]


def test_broken_unicode_escape_names_its_line() -> None:
    """A \\u without four digits is an error with a line number."""
    with pytest.raises(ConfigError, match=r"line 2 .*hexadecimal"):
        list(parse_properties("a=1\nb=\\u12"))


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=5))
def test_properties_written_with_escapes_read_back(settings: dict[str, str]) -> None:
    """Whatever is written with every character escaped comes back unchanged."""

    def escaped(text: str) -> str:
        units = text.encode("utf-16-be", "surrogatepass")
        codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
        return "".join(f"\\u{code:04x}" for code in codes)

    text = "\n".join(f"{escaped(key)}={escaped(value)}" for key, value in settings.items())

    def rejoined(text: str) -> str:
        return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")

    parsed = {rejoined(key): rejoined(value) for _, key, value in parse_properties(text)}
    assert parsed == settings


def test_toml_tables_become_dotted_keys(tmp_path: Path) -> None:
    """Nested tables are flattened, values keep TOML's types, and the origin names file and key."""
    file = tmp_path / "namesrv.toml"
    file.write_text('name = "a"\n[listeners.remoting]\nport = 9876\nhosts = ["x", "y"]\n')
    assert read_file(file) == [
        ("name", "a", f"file {file}, key name"),
        ("listeners.remoting.port", 9876, f"file {file}, key listeners.remoting.port"),
        ("listeners.remoting.hosts", ["x", "y"], f"file {file}, key listeners.remoting.hosts"),
    ]


def test_any_other_file_is_properties(tmp_path: Path) -> None:
    """RocketMQ's broker.conf is a properties file whatever it is called; Latin-1 is understood as Java does."""
    file = tmp_path / "broker.conf"
    file.write_bytes("# Gerät\nbrokerName=Gerät\n".encode("latin-1"))
    assert read_file(file) == [("brokerName", "Gerät", f"file {file}:2")]


def test_files_that_cannot_be_read_name_themselves(tmp_path: Path) -> None:
    """A missing, a broken and a huge file each say which file and what is wrong."""
    with pytest.raises(ConfigError, match=r"absent.conf cannot be read"):
        read_file(tmp_path / "absent.conf")
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    with pytest.raises(ConfigError, match=r"broken.toml is no TOML.*line 1"):
        read_file(broken)
    huge = tmp_path / "huge.conf"
    huge.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="1048577 bytes"):
        read_file(huge)


def test_environment_keeps_only_the_prefix_and_no_kubernetes_services() -> None:
    """Variables that Kubernetes makes for a service of the same name are not taken for settings."""
    environ = {
        "HOME": "/home/x",
        "APOGEEMQ_BROKER_NAME": "a",
        "APOGEEMQ_BROKER_SERVICE_HOST": "10.0.0.1",
        "APOGEEMQ_BROKER_SERVICE_PORT_REMOTING": "10911",
        "APOGEEMQ_BROKER_PORT": "tcp://10.0.0.1:10911",
        "APOGEEMQ_BROKER_PORT_10911_TCP_ADDR": "10.0.0.1",
    }
    assert read_environment(environ, "APOGEEMQ_BROKER_") == [
        ("APOGEEMQ_BROKER_NAME", "a", "environment APOGEEMQ_BROKER_NAME")
    ]


def test_set_flags() -> None:
    """--set takes KEY=VALUE, the value may hold "=", and a later flag wins."""
    assert parse_set_flags(["a.b=1", "c = x=y", "a.b=2"]) == {"a.b": "2", "c": "x=y"}
    with pytest.raises(ConfigError, match=r"--set nonsense is not of the form KEY=VALUE"):
        parse_set_flags(["nonsense"])
