"""The numbers against the tables of Apache's names (tests/wire/tables)."""

import csv
from pathlib import Path

import pytest
from apogeemq.remoting_codec import codes
from apogeemq.remoting_codec.codes import LanguageCode, RequestCode, ResponseCode, SerializeType

TABLES = Path(__file__).parent / "wire" / "tables"


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_request_code_has_its_apache_name() -> None:
    """The request codes are exactly those of the table, under the same names."""
    expected = {row["name"]: int(row["number"]) for row in rows("request_codes.tsv")}
    assert {name: int(member) for name, member in RequestCode.__members__.items()} == expected


def test_every_response_code_has_its_apache_name() -> None:
    """The response codes are exactly those of the table, 4.9's names included."""
    expected = {row["name"]: int(row["number"]) for row in rows("response_codes.tsv")}
    assert {name: int(member) for name, member in ResponseCode.__members__.items()} == expected


@pytest.mark.parametrize("row", rows("response_codes.tsv"), ids=lambda row: f"{row['number']}-{row['name']}")
def test_numbers_used_twice_go_by_their_5x_name(row: dict[str, str]) -> None:
    """A number that 5.x gave a new meaning shows its 5.x name; the 4.9 name is an alias."""
    assert (ResponseCode(int(row["number"])).name == row["name"]) == (row["only_in_4.9"] == "n")


def test_languages_are_in_apache_order() -> None:
    """Language codes are the ordinals of Apache's enum."""
    table = "JAVA CPP DOTNET PYTHON DELPHI ERLANG RUBY OTHER HTTP GO PHP OMS RUST NODE_JS"
    names = table.split()
    assert [(member.name, int(member)) for member in LanguageCode] == [(name, i) for i, name in enumerate(names)]


def test_serialise_types() -> None:
    """The mark byte is 0 for JSON headers and 1 for binary ones."""
    assert [(member.name, int(member)) for member in SerializeType] == [("JSON", 0), ("ROCKETMQ", 1)]


@pytest.mark.parametrize(
    ("code", "request_name", "response_name"),
    [
        (10, "SEND_MESSAGE", "FLUSH_DISK_TIMEOUT"),
        (9999, "9999", "9999"),
        (0, "0", "SUCCESS"),
        (-1006, "-1006", "RPC_TIME_OUT"),
    ],
)
def test_names_of_codes_for_logs(code: int, request_name: str, response_name: str) -> None:
    """Looking up a name never fails: an unknown code is shown as its number."""
    assert (codes.request_code_name(code), codes.response_code_name(code)) == (request_name, response_name)
