"""How results are shown."""

import json

from tools.bench import report
from tools.bench.cases import Case, CaseResult
from tools.bench.load import Outcome

OUTCOME = Outcome(
    messages=10_000,
    elapsed_s=2.0,
    p50_ms=0.5,
    p99_ms=1.25,
    max_ms=9.0,
    errors={"code 2: busy": 3},
    generator_cpu_s=0.5,
    server_cpu_s=0.2,
)
RESULT = CaseResult(Case("send", 1, 64), OUTCOME, ceiling=None)


def test_the_table_has_rates_per_second_and_cpu_per_message() -> None:
    """10,000 messages in 2 s; 0.2 s of CPU are 20 µs each; 0.5 s of 2 s are a quarter of a core."""
    lines = report.cases_table([RESULT]).splitlines()
    assert lines[0].split()[:6] == ["case", "msg/s", "p50", "ms", "p99", "ms"]
    assert lines[1].split() == ["send-1x64", "5,000", "0.500", "1.250", "20.0", "3", "25%", "-"]
    assert lines[2] == "send-1x64: 3 × code 2: busy"
    assert len(lines[0]) == len(lines[1])


def test_json_has_the_computed_figures_too() -> None:
    """A reader need not divide."""
    surroundings = report.Surroundings.of("a server", (0.0, 0.0, 0.0))
    document = json.loads(report.as_json("remoting", [RESULT], surroundings))
    assert document["measurement"] == "remoting"
    assert document["surroundings"]["server"] == "a server"
    [result] = document["result"]
    assert result["case"]["name"] == "send-1x64"
    assert (result["outcome"]["rate"], result["outcome"]["server_cpu_us"]) == (5000.0, 20.0)
    assert result["ceiling"] is None
