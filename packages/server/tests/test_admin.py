"""The command `apogeemq admin`: what it reads. What controllers answer is tried in tests/e2e."""

import pytest
from apogeemq.server.__main__ import main

NOBODY = ["--controller", "127.0.0.1:1;127.0.0.1:2"]


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "broker-a", "-o", "json"],
        ["elect", "broker-a"],
        ["elect", "broker-a", "--broker-id", "2"],
        ["recover", "broker-a", "--from", "2"],
        ["set-learner", "broker-a", "3", "--on"],
        ["clean-broker", "broker-a", "--whole-set"],
    ],
)
def test_where_nobody_answers_the_code_is_1(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """All that were named are tried, and named again in the error, under this command's own name."""
    assert main(["admin", "ha", *words, *NOBODY]) == 1
    error = capsys.readouterr().err
    assert error.startswith("apogeemq admin ha: ")
    assert all(target in error for target in ("127.0.0.1:1", "127.0.0.1:2"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ha"],
        ["ha", "elect"],
        ["ha", "recover", "broker-a"],
        ["ha", "recover", "broker-a", "--from", "0"],
        ["ha", "clean-broker", "broker-a"],
    ],
)
def test_wrong_arguments_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As everywhere."""
    with pytest.raises(SystemExit) as ended:
        main(["admin", *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: apogeemq admin")


def test_nobody_to_ask_is_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable of a script that is empty, for example."""
    assert main(["admin", "ha", "status", "--controller", " ; "]) == 2
    assert "--controller names no controller" in capsys.readouterr().err


def test_an_authority_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With the system's reason, and no traceback."""
    assert main(["admin", "ha", "status", "--ca", "/no/such.pem"]) == 2
    assert "--ca /no/such.pem cannot be read: No such file" in capsys.readouterr().err
