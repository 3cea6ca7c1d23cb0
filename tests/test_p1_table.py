"""The broker's README has the generated table of P1 requests, and each test that it names is there."""

from pathlib import Path

import pytest

from tools import p1_table
from tools.p1_table import BEGIN, END, README, ROOT, Request

SENDS = Request(code=10, name="SEND_MESSAGE", direction="client → broker", tests=("test_a.py::test_b",))
TELLS = Request(code=40, name="NOTIFY_CONSUMER_IDS_CHANGED", direction="broker → client")


def test_the_table_is_up_to_date() -> None:
    """Made of what the broker serves and sends now: python -m tools.p1_table --write."""
    readme = (ROOT / README).read_text(encoding="utf-8")
    requests = p1_table.load_requests()
    assert p1_table.with_table(readme, p1_table.table(requests, p1_table.uses_of())) == readme
    assert len(requests) == 44, "as many as Apache's 5.3 and 5.5 have"


def test_every_named_test_is_there() -> None:
    """And every request that is served or sent has one."""
    assert p1_table.complaints(p1_table.load_requests(), p1_table.uses_of()) == []


def test_what_is_served_and_sent_is_found_in_code() -> None:
    """Keys of tables, and codes of commands; nothing else."""
    source = (
        "TABLE = {RequestCode.HEART_BEAT: beat, ResponseCode.SUCCESS: 1, **more}\n"
        "RemotingCommand(code=RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, flag=1)\n"
        "codes = [RequestCode.PULL_MESSAGE]\n"
    )
    assert dict(p1_table.uses(source)) == {"HEART_BEAT": "served", "NOTIFY_CONSUMER_IDS_CHANGED": "sent"}


def test_a_row_says_what_the_broker_does() -> None:
    """Served, sent, refused, not sent; what is not served is proved by the test that sends it."""
    refused = "`test_p1_requests.py::test_what_is_not_served`"
    served, sent = p1_table.table([SENDS, TELLS], {"SEND_MESSAGE": "served", TELLS.name: "sent"}).splitlines()[2:]
    assert served == "| 10 | `SEND_MESSAGE` | client → broker | served | `test_a.py::test_b` |  |"
    assert sent.split(" | ")[3] == "sent"
    served, sent = p1_table.table([SENDS, TELLS], {}).splitlines()[2:]
    assert served == f"| 10 | `SEND_MESSAGE` | client → broker | refused: 3 | {refused} |  |"
    assert sent.split(" | ")[3] == "not sent"


def test_a_test_that_is_gone_is_found(tmp_path: Path) -> None:
    """By its file and its function."""
    folder = tmp_path / p1_table.BROKER / "tests"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text("async def test_b() -> None:\n    def test_c() -> None: ...\n")
    known: dict[str, p1_table.Use] = {"SEND_MESSAGE": "served"}
    assert p1_table.complaints([SENDS], known, tmp_path) == []
    for gone in ("test_a.py::test_c", "test_a.py", "test_z.py::test_b"):
        request = Request(code=10, name="SEND_MESSAGE", direction="", tests=(gone,), java=("test_j.py::test_k",))
        missing = [f"SEND_MESSAGE: there is no {name}" for name in (gone, "test_j.py::test_k")]
        assert p1_table.complaints([request], known, tmp_path) == missing
    bare = Request(code=10, name="SEND_MESSAGE", direction="")
    assert p1_table.complaints([bare], known, tmp_path) == [f"SEND_MESSAGE: {p1_table.REQUESTS} names no test"]
    assert p1_table.complaints([bare], {}, tmp_path) == []


@pytest.mark.parametrize("readme", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}"])
def test_a_readme_without_its_marks_is_told(readme: str) -> None:
    """Nothing is written where the table does not belong."""
    with pytest.raises(ValueError, match="once each"):
        p1_table.with_table(readme, "table")
    assert p1_table.with_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
