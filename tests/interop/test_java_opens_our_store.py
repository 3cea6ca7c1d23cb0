"""One store directory in turns: ours, Apache's 5.3.3, ours again; and the other way round.

Each owner must find everything that the earlier ones stored, by queue, offset, id and key, with its offsets and with
what is still to be delivered; then it adds its share and stops in good order.
"""

import pathlib

import pytest

from tests.e2e.wire_client import WireClient
from tests.interop.shared_store import LOG_FILE_SIZE_BYTES, Owner, SharedStore
from tests.interop.store_ledger import Ledger, scheduled

pytestmark = pytest.mark.verify

COUNT = 1_000
LEVEL_OF_PENDING = {Owner.OURS: 3, Owner.APACHE: 4}
"""10 s and 30 s: Apache's stop takes some ten seconds, and what is pending must stay so."""


@pytest.mark.parametrize(
    "owners",
    [(Owner.OURS, Owner.APACHE, Owner.OURS), (Owner.APACHE, Owner.OURS, Owner.APACHE)],
    ids=["ours-first", "apache-first"],
)
def test_a_store_goes_to_and_fro(java_command: str, tmp_path: pathlib.Path, owners: tuple[Owner, ...]) -> None:
    """Nothing is lost, changed or delivered twice at either change of owners."""
    store, ledger = SharedStore(tmp_path), Ledger()
    turns = {f"turn{number}": owner for number, owner in enumerate(owners)}
    for turn, owner in turns.items():
        with store.start(owner) as process:
            with WireClient(store.address) as client:
                ledger.look(client)
                ledger.look_at_offsets(client)
                ledger.await_pending(client)
                ledger.fill(client, turn, COUNT)
                if owner is Owner.APACHE:  # ours answers no such requests yet
                    ledger.look_by_id(client)
                    ledger.look_by_key(client)
                ledger.leave_pending(client, turn, LEVEL_OF_PENDING[owner])
                if owner is Owner.OURS:
                    ledger.leave_popped(client, turn)
                delayed = scheduled(client, LEVEL_OF_PENDING[owner])
            store.stop(owner, process)
        left = delayed - store.delay_progress(LEVEL_OF_PENDING[owner])
        assert left == 2, "what is pending is for the next owner"
    assert len(list((store.path / "commitlog").iterdir())) > len(owners) * COUNT * 2000 // LOG_FILE_SIZE_BYTES
