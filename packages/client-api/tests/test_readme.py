"""The README's example runs as it stands."""

import contextlib
import io
import pathlib
import re

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_example_prints_what_the_readme_says() -> None:
    """A typed topic's message has the body that is shown."""
    ((program, printed),) = re.findall(r"```python\n(.*?)```\s+It prints `([^`]*)`", README.read_text(), re.DOTALL)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(program, str(README), "exec"), {"__name__": "example"})
    assert output.getvalue() == f"{printed}\n"
