"""Runs the client libraries' cases, each in a process of its own, against an all-in-one in another."""

import pathlib
import tempfile
from collections.abc import Sequence

from tests.interop.deployments import AllInOne, Deployment
from tools.bench.cases import fresh_topic, in_process_of_its_own
from tools.bench.client_kinds import run
from tools.bench.client_load import CASES, ClientLoad, ClientOutcome

CLIENTS = ("remoting", "grpc")

LOOPS = ("asyncio", "uvloop")


def measure(clients: Sequence[str], loops: Sequence[str], seconds: float, warmup_s: float) -> list[ClientOutcome]:
    """Every case of each client under each event loop, one after the other."""
    outcomes = []
    with (
        tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory,
        AllInOne(pathlib.Path(directory), {}) as deployment,
    ):
        for client in clients:
            for loop in loops:
                for kind, in_flight in CASES:
                    load = ClientLoad(
                        client=client,
                        kind=kind,
                        in_flight=in_flight,
                        target=_target(client, deployment),
                        topic=fresh_topic(f"{client}-{kind}-{in_flight}"),
                        seconds=seconds,
                        warmup_s=warmup_s,
                        loop=loop,
                    )
                    outcomes.append(in_process_of_its_own(run, load))
        deployment.stop()
    return outcomes


def _target(client: str, deployment: Deployment) -> str:
    """What a client is given as its servers' address."""
    return deployment.namesrv if client == "remoting" else deployment.grpc
