"""SYNC_FLUSH in a real process: an acknowledgement means that the log was synced, and who waits shares a sync."""

import contextlib
import json
import pathlib
import sys

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import ManagedProcess, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, send_fields

CONNECTIONS, ROUNDS = 16, 12


def start(directory: pathlib.Path, *, sync_s: float, **settings: str) -> ManagedProcess:
    """The all-in-one with SYNC_FLUSH, where each sync of the commit log takes `sync_s` longer."""
    return start_all_in_one(
        directory / "data",
        log_directory=directory,
        settings={"broker.flushDiskType": "SYNC_FLUSH", **{f"broker.{key}": value for key, value in settings.items()}},
        command=[sys.executable, str(pathlib.Path(__file__).with_name("slow_disk.py")), str(sync_s)],
    )


def test_acknowledgements_wait_for_the_disk_and_share_it(tmp_path: pathlib.Path) -> None:
    """Each connection sends when its last send was acknowledged: so no fewer syncs than rounds, and far below one each.

    A connection's next send begins after the sync that covered its last one, so a sync covers at most one send of each
    connection: there are at least ROUNDS. With a disk this slow the others' sends arrive while one sync runs and are
    covered by the next: about two for each round, of which CONNECTIONS sends profit.
    """
    with (
        start(tmp_path, sync_s=0.02, flushIntervalCommitLog="3600000") as process,
        contextlib.ExitStack() as open_connections,
    ):
        address = process.wait_ready().listeners["broker.remoting"]
        clients = [open_connections.enter_context(WireClient(address)) for _ in range(CONNECTIONS)]
        clients[0].request(RequestCode.SEND_MESSAGE_V2, send_fields("Synced", 1), b"make the topic")
        for _ in range(ROUNDS):
            opaques = [client.send(RequestCode.SEND_MESSAGE_V2, send_fields("Synced"), b"x") for client in clients]
            replies = [client.receive(opaque) for client, opaque in zip(clients, opaques, strict=True)]
            assert {reply.code for reply in replies} == {ResponseCode.SUCCESS}
        assert len(pull_all(clients[0], "Synced", "G_synced")) == ROUNDS * CONNECTIONS
        process.stop()
        syncs = json.loads(process.lines[-1])["commit_log_syncs"]
        assert ROUNDS <= syncs <= ROUNDS * CONNECTIONS // 2


def test_a_sync_that_takes_too_long_is_told(tmp_path: pathlib.Path) -> None:
    """Stored and not known to be on disk in time is FLUSH_DISK_TIMEOUT; the message is there all the same."""
    with (
        start(tmp_path, sync_s=0.6, syncFlushTimeout="1") as process,
        WireClient(process.wait_ready().listeners["broker.remoting"]) as client,
    ):
        sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Late"), b"late")
        assert sent.code == ResponseCode.FLUSH_DISK_TIMEOUT
        assert (sent.ext_fields or {})["queueOffset"] == "0"
        assert [record.body for record in pull_all(client, "Late", "G_late")] == [b"late"]
        process.stop()
