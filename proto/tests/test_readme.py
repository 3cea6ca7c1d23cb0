"""The README's example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_example_runs() -> None:
    """The example prints what the README says it prints."""
    text = README.read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (expected,) = re.findall(r"^It prints `(.*)`", text, re.MULTILINE)
    assert done.stdout.strip() == expected
