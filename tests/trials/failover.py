"""How long a broker set takes no messages when its master goes: `python -m tests.trials.failover [ROUNDS [HOW …]]`.

Etcd ×3, a name server, two controllers and three brokers as processes on this machine, leases of 3 s; one sender sends
one message after the other to whoever the name server calls master. A pause is what lies between the last message
acknowledged before and the first one after. Every acknowledged message is looked for in the end.
"""

from __future__ import annotations

import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time

from tests.e2e.broker_set import BrokerSetDeployment, Load

ROUNDS = 5
HOWS = ("stop", "kill", "freeze")


def measure(deployment: BrokerSetDeployment, how: str, number: int) -> float:
    """One pause in seconds."""
    before = deployment.whole()
    master = deployment.name_of(before["master_id"])
    process = deployment.process(master)
    with Load(deployment, f"Pause_{how}_{number}") as load:
        begun_s = time.monotonic()
        if how == "stop":
            process.stop()
        else:
            process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        deployment.until(lambda told: told["master_id"] not in {0, before["master_id"]}, "another broker is master")
        load.wait_for_more()
        pause_s = load.longest_pause_s(begun_s)
        if how == "freeze":
            process.send_signal(signal.SIGCONT)
        else:
            process.kill()
            deployment.start_broker(master)
        deployment.whole()
    missing = load.missing()
    if missing:
        raise AssertionError(f"{len(missing)} acknowledged messages are lost")
    return pause_s


def main(arguments: list[str]) -> int:
    """Print a table."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    with tempfile.TemporaryDirectory() as directory, BrokerSetDeployment(pathlib.Path(directory)) as deployment:
        for how in arguments[1:] or HOWS:
            pauses = sorted(measure(deployment, how, number) for number in range(rounds))
            listed = " ".join(f"{pause:.2f}" for pause in pauses)
            print(f"master {how:8} median {statistics.median(pauses):.2f} s of {listed}", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
