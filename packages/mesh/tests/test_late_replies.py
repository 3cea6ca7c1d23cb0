"""What is remembered of calls that were given up: once each, for a time, and only so many."""

from __future__ import annotations

import logging

import pytest
from apogeemq.mesh import late_replies
from apogeemq.mesh.late_replies import LATE_S, LateReplies, tell_late
from hypothesis import given
from hypothesis import strategies as st

STEPS = st.lists(
    st.tuples(st.sampled_from(["keep", "keep", "take", "forget"]), st.integers(0, 5), st.sampled_from([0, 1, 10, 40]))
)


@given(STEPS)
def test_against_a_list(steps: list[tuple[str, int, int]]) -> None:
    """As a list that is searched from its end, of which only the youngest few count, and those not for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_replies, "LATE_MAX", 3)
        late: LateReplies[int, int] = LateReplies()
        twin: list[tuple[int, int, float]] = []
        now = 0.0
        for what, (step, key, after_s) in enumerate(steps):
            now += after_s
            found = [entry for entry in twin if entry[0] == key]
            if step == "keep" and not found:  # a call is given up once
                late.keep(key, what, now)
                twin = [*(entry for entry in twin if now <= entry[2] + LATE_S), (key, what, now)][-3:]
            elif step == "take":
                wanted = found[0][1] if found and now <= found[0][2] + LATE_S else None
                assert late.take(key, now) == wanted
            elif step == "forget":
                late.forget(key)
            if step != "keep":
                twin = [entry for entry in twin if entry[0] != key]
            assert len(late) == len(twin)


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads replies goes on."""

    def fail(reply: str) -> None:
        raise KeyError(reply)

    with caplog.at_level(logging.ERROR):
        tell_late(fail, "a")
    assert "a late reply could not be dealt with" in caplog.text
