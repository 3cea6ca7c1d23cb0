"""What an active controller costs while many broker sets beat to it, each with one broker and one beat a second.

The figures of docs/performance.md come from this script, which starts an etcd member and a controller of its own:

    .venv/bin/python -m tests.trials.controller_beats --sets 1000

A line of JSON: the share of a core that the controller took over `--seconds`, beats a second that were answered, the
microseconds of CPU of each with all that goes on beside it, resident memory, and brokers that had to register again.
"""

import argparse
import asyncio
import json
import os
import pathlib
import tempfile
import time

from apogeemq.mesh.grpc_network import GrpcNetwork

from tests.e2e.process import ManagedProcess, start_service
from tests.etcd_cluster import EtcdCluster
from tests.raw_broker import RawBroker

BEAT_S = 1.0
SETTLE_S = 5.0


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def measure(target: str, pid: int, sets: int, seconds: float) -> dict[str, float]:
    """Register and elect in every set, let things settle, then count."""
    network = GrpcNetwork()
    brokers: list[RawBroker] = []
    for number in range(sets):
        broker = RawBroker(
            network, target, cluster="DefaultCluster", name=f"broker-{number}", code=f"code-{number}", beat_s=BEAT_S
        )
        await broker.__aenter__()
        brokers.append(broker)
        for answer in (await broker.register(), await broker.elect()):
            assert not answer.HasField("refused"), answer
    await asyncio.sleep(SETTLE_S)
    begun_s, cpu_before_s = time.monotonic(), cpu_s(pid)
    beats_before = sum(broker.beaten for broker in brokers)
    await asyncio.sleep(seconds)
    elapsed_s, used_s = time.monotonic() - begun_s, cpu_s(pid) - cpu_before_s
    beats = sum(broker.beaten for broker in brokers) - beats_before
    return {
        "share_of_a_core": round(used_s / elapsed_s, 3),
        "beats_per_s": round(beats / elapsed_s),
        "us_per_beat": round(used_s / beats * 1e6),
        "resident_mib": round(resident_mib(pid), 1),
        "registered_again": sum(broker.register_again for broker in brokers),
    }


def controller(etcd: EtcdCluster, directory: pathlib.Path) -> ManagedProcess:
    """One controller on free ports."""
    config = directory / "controller.toml"
    config.write_text("")
    settings = {
        "listeners.mesh.host": "127.0.0.1",
        "listeners.mesh.port": "0",
        "listeners.http.port": "0",
        "etcd.endpoints": etcd.endpoints[0],
    }
    return start_service("controller", config=config, settings=settings, log_directory=directory)


def main() -> None:
    """Run it and print the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with (
        EtcdCluster() as etcd,
        tempfile.TemporaryDirectory() as scratch,
        controller(etcd, pathlib.Path(scratch)) as process,
    ):
        target = process.wait_ready().listeners["mesh"]
        time.sleep(1.0)  # until it is active
        print(json.dumps(asyncio.run(measure(target, process.pid, options.sets, options.seconds))))


if __name__ == "__main__":
    main()
