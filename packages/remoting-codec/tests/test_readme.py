"""The examples of README.md run and print what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("example", "expected"), [(0, "103\n"), (1, "request HEART_BEAT(34) opaque=0")])
def test_example_runs(example: int, expected: str) -> None:
    """The example runs by itself, in a process of its own as a reader would run it."""
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[example]], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(expected)


def test_every_example_is_tried() -> None:
    """No example is left out above."""
    assert len(EXAMPLES) == 2
