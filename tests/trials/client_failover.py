"""How long sends take when a set's master is killed: `python -m tests.trials.client_failover [ROUNDS]`.

One etcd, a name server, two controllers, three brokers and a proxy as processes on this machine. An application sends
one message after the other, by our clients with their defaults: over gRPC, over Remoting straight to the brokers, and
over Remoting through the proxy. A pause is what lies between the last acknowledgement before and the first one after;
errors are sends that failed for the application. Every acknowledged message is looked for in the end.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
import tempfile
import time

from tests.e2e.broker_set import BrokerSetDeployment
from tests.e2e.set_clients import Application, Doors, doors_of, make_topic, read_back

ROUNDS = 30


async def measure(deployment: BrokerSetDeployment, doors: Doors, door: str, number: int) -> tuple[float, int, int]:
    """One pause in seconds, the errors, and how many messages were stored twice."""
    before = await asyncio.to_thread(deployment.whole)
    master = deployment.name_of(before["master_id"])
    topic = f"Pause_{door}_{number}"
    make_topic(deployment, topic)
    application = Application(topic)
    async with doors[door]() as producer, application.sending(producer):
        begun_s = time.monotonic()
        deployment.process(master).kill()
        await asyncio.to_thread(
            deployment.until, lambda told: told["master_id"] not in {0, before["master_id"]}, "another is master"
        )
        await application.more(20)
        pause_s = application.longest_pause_s(begun_s)
        await asyncio.to_thread(deployment.start_broker, master)
        await asyncio.to_thread(deployment.whole)
    found = await asyncio.to_thread(read_back, deployment, topic)
    lost = set(application.sent) - set(found)
    if lost:
        raise AssertionError(f"{len(lost)} acknowledged messages are lost")
    return pause_s, len(application.errors), len(found) - len(set(found))


async def measure_all(deployment: BrokerSetDeployment, rounds: int) -> None:
    """Print a table."""
    doors = doors_of(deployment, deployment.start_proxy())
    for door in doors:
        seen = [await measure(deployment, doors, door, number) for number in range(rounds)]
        pauses = sorted(pause_s for pause_s, _, _ in seen)
        p50, p99 = (pauses[min(int(rounds * share), rounds - 1)] for share in (0.5, 0.99))
        errors, twice = sum(each[1] for each in seen), sum(each[2] for each in seen)
        print(
            f"{door:9} {rounds} rounds: p50 {p50:.2f} s, p99 {p99:.2f} s, "
            f"range {pauses[0]:.2f} to {pauses[-1]:.2f}; failed sends {errors}, stored twice {twice}",
            flush=True,
        )


def main(arguments: list[str]) -> int:
    """Measure."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    with tempfile.TemporaryDirectory() as directory, BrokerSetDeployment(pathlib.Path(directory), etcd=1) as deployment:
        asyncio.run(measure_all(deployment, rounds))
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
