"""Crowds and probes against servers made for them: every request answered once, and refusals told."""

import json

import pytest

from tests.e2e.process import ManagedProcess
from tools.bench import crowd, frames
from tools.bench.crowd import Crowd, NoAnswerError
from tools.bench.probe import Probe
from tools.bench.requests import Load, SpreadSends
from tools.bench.server_process import split_address


def address_of(process: ManagedProcess) -> tuple[str, int]:
    return split_address(process.wait_ready().listeners["remoting"])


def test_every_connection_gets_its_own_answer(null_server: ManagedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they come; and more requests than are sent at a time are all answered."""
    monkeypatch.setattr(crowd, "WINDOW", 2)
    with Crowd(*address_of(null_server), count=5) as five:
        for number in (4, 0, 2):
            five.send(number, frames.member_list_request("g", number))
        assert five.collect(3) == {0: 0, 2: 0, 4: 0}
        five.ask({number: frames.heartbeat_request("c", "g", ["T"], number) for number in range(5)})


def test_what_is_not_answered_is_an_error(null_server: ManagedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, with the number of those that were."""
    monkeypatch.setattr(crowd, "ANSWER_TIMEOUT_S", 0.5)
    with Crowd(*address_of(null_server), count=2) as two:
        two.send(0, frames.member_list_request("g", 0))
        with pytest.raises(NoAnswerError, match="1 of 2 requests"):
            two.collect(2)


def test_a_probe_tells_its_waits(null_server: ManagedProcess) -> None:
    """Those of the time in which it was asked to."""
    with Probe(*address_of(null_server)) as probe:
        pass
    assert all(wait_ms > 0 for wait_ms in probe.waits_ms)


def test_spread_sends_go_to_every_topic_in_turn() -> None:
    """Whatever the slot, with fresh keys each time; a frame is not used again while another slot's is in flight."""
    requests = SpreadSends(Load("spread", "h", 1, "T", 1, 4, topics=3, keys=2, body_bytes=1))
    sent = [json.loads(bytes(requests.next(slot) or b"")[frames.HEAD_BYTES : -1]) for slot in (3, 0, 1, 2)]
    assert [header["extFields"]["b"] for header in sent] == ["T_0", "T_1", "T_2", "T_0"]
    assert [header["opaque"] - frames.OPAQUE_BASE for header in sent] == [3, 0, 1, 2]
    properties = [dict(pair.split("\x01") for pair in header["extFields"]["i"][:-1].split("\x02")) for header in sent]
    keys = [key for each in properties for key in (each["UNIQ_KEY"], *each["KEYS"].split(" "))]
    assert len(set(keys)) == 12
