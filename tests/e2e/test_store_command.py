"""`apogeemq-store` on the directory of a real broker: refused while it runs, at home in it after the stop."""

import json
import pathlib
import subprocess
import sys

from apogeemq.remoting_codec.codes import ResponseCode

from tests.e2e.process import start_all_in_one
from tests.e2e.wire_client import WireClient, send_fields

MESSAGES = 1000
SEND_MESSAGE_V2 = 310
SMALL_FILES = {"broker.mappedFileSizeCommitLog": "65536"}
TIMEOUT_S = 20.0


def store_command(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "apogeemq.store", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_check_of_a_broker_that_runs_and_of_one_that_was_stopped(tmp_path: pathlib.Path) -> None:
    """Refused with the broker's process id while it runs; afterwards every message is there, by queue and by key."""
    store = tmp_path / "data" / "broker"
    with start_all_in_one(tmp_path / "data", log_directory=tmp_path / "logs", settings=SMALL_FILES) as process:
        with WireClient(process.wait_ready().listeners["broker.remoting"]) as client:
            opaques = [
                client.send(SEND_MESSAGE_V2, send_fields("Checked", n % 4, f"KEYS\1key-{n}\2"), b"body %d" % n)
                for n in range(MESSAGES)
            ]
            assert {client.receive(opaque).code for opaque in opaques} == {ResponseCode.SUCCESS}
        refused = store_command("check", store)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{store} is in use by process {process.pid} (" in refused.stderr
        process.stop()

    checked = store_command("check", store, "-o", "json")
    assert (checked.returncode, checked.stderr) == (0, "")
    summary = json.loads(checked.stdout)
    assert summary["fine"]
    assert (summary["messages"], summary["queues"]) == (MESSAGES, 4)
    assert summary["indexEntries"] == 2 * MESSAGES  # the key, and the unique key that the broker gives who sends none
    found = store_command("index", store, "--topic", "Checked", "--key", "key-7", "-o", "json", "--body")
    assert [json.loads(line)["queueId"] for line in found.stdout.splitlines()] == [3]
