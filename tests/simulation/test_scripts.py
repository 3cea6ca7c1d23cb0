"""The stories of scripts/, replayed."""

import pytest

from tests.simulation import script


@pytest.mark.parametrize("name", script.names())
def test_a_story_goes_as_it_is_told(name: str) -> None:
    """Its facts hold, and it leaves the trace that was reviewed; `./task sim -- --script NAME` shows it."""
    assert script.difference(name) == ""


def test_a_fact_that_does_not_hold_ends_the_story() -> None:
    """With the fact, what is so instead, and where in the script."""
    with pytest.raises(script.ScriptError, match="expect leading b2: it is") as caught:
        script.replay("# a story\nstart c1 b1\nexpect leading b2\n")
    assert "line 3: expect leading b2" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("dance", "no such command: dance"),
        ("start b7", "nobody is called b7"),
        ("elect c1", "c1 is no broker"),
        ("cut b1 b2", "who from whom"),
        ("learner b1 maybe", "on or off"),
        ("expect rain", "no such fact: rain"),
        ("expect told op that it is late", "op was not told: that it is late"),
    ],
)
def test_a_command_that_makes_no_sense_is_named(line: str, why: str) -> None:
    """Nobody has to guess which one."""
    with pytest.raises(script.ScriptError, match=why):
        script.replay(line + "\n")


def test_a_trace_that_has_changed_is_written_anew() -> None:
    """Comments, commands and empty lines stay; what is indented goes, and what happens now takes its place."""
    text = "# a story\n\nstart c1\n    long ago\n"
    assert script.replay(text) == "# a story\n\nstart c1\n          0 ms  c1   starts\n"
