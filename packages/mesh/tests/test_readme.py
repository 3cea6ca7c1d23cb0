"""The README's examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_examples_run() -> None:
    """Each example prints what the README says behind it."""
    examples = re.findall(r"```python\n(.*?)```\s+It prints `([^`]*)`( twice)?", README.read_text(), re.DOTALL)
    assert len(examples) == README.read_text().count("```python")
    for program, line, twice in examples:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [line] * (2 if twice else 1)
