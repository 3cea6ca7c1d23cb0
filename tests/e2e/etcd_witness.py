"""What etcd holds below a prefix, read by the `etcd3` package: a client that shares no code with the controller's.

Runs in a process of its own with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python, for its stubs are of an older protobuf
(docs/adr/0002-own-etcd-client.md):

    python -m tests.e2e.etcd_witness HOST PORT PREFIX

Prints one JSON object: `keys`, sorted, each with its value and its lease (0 is none), and `leases` by id with the TTL
that was granted, in seconds, whether it lives, and the keys that hang on it.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

PURE_PYTHON = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
TIMEOUT_S = 10
ROOT = pathlib.Path(__file__).resolve().parents[2]


def witness(endpoint: str, prefix: str) -> dict[str, Any]:
    """Read etcd at "host:port" in a process of its own; fails with what that printed."""
    host, _, port = endpoint.rpartition(":")
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.etcd_witness", host, port, prefix],
        capture_output=True,
        text=True,
        env={**os.environ, **PURE_PYTHON},
        cwd=ROOT,
        timeout=6 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def main(host: str, port: str, prefix: str) -> None:
    """Print what is there."""
    import etcd3  # imports with the pure-Python parser alone

    client = etcd3.client(host=host, port=int(port), timeout=TIMEOUT_S)
    keys = []
    for value, about in sorted(client.get_prefix(prefix), key=lambda each: bytes(each[1].key)):
        keys.append({"key": about.key.decode(), "value": value.decode(), "lease": about.lease_id})
    leases = {}
    for lease_id in sorted({each["lease"] for each in keys} - {0}):
        info = client.get_lease_info(lease_id)
        held = sorted(key.decode() for key in info.keys)
        leases[lease_id] = {"granted_s": info.grantedTTL, "is_alive": info.TTL > 0, "keys": held}
    json.dump({"keys": keys, "leases": leases}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
