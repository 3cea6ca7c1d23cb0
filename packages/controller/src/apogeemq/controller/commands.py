"""What operators ask running controllers: `apogeemq-controller status | elect-master | …`.

    apogeemq-controller status --controller 10.0.0.1:9870;10.0.0.2:9870 -o json
    apogeemq-controller elect-master --broker-name broker-a --broker-id 2
    apogeemq-controller clean-broker --broker-name broker-a --broker-id 3
    apogeemq-controller recover broker-a --from 2
    apogeemq-controller set-learner broker-a 3 --on

Any controller may be named: what only the active one can do or say, it is asked for.
Exit codes: 0 done, 1 refused or nobody answered, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from apogeemq.controller.status import render
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import Network, Req, Unary
from apogeemq.mesh.tls import ClientTls

if TYPE_CHECKING:
    from apogeemq.mesh.network import MeshChannel
    from apogeemq.mesh.v1 import controller_pb2 as pb

COMMANDS = ("status", "elect-master", "clean-broker", "recover", "set-learner")
CALL_TIMEOUT_S = 12.0
"""A little more than a controller gives etcd for an operator."""

_Reply = TypeVar("_Reply")


class NobodyAnswered(Exception):  # noqa: N818 — a fact, as in errors.py
    """None of the controllers that were named could be asked."""


class Controllers:
    """The controllers that an operator named, asked in turn until one answers."""

    def __init__(self, targets: Sequence[str], network: Network, tls: ClientTls | None) -> None:
        self._targets = targets
        self._network = network
        self._tls = tls

    async def ask_any(self, call: Callable[[MeshChannel], Awaitable[_Reply]]) -> _Reply:
        """Give the first answer. Raises NobodyAnswered."""
        failures = []
        for target in self._targets:
            try:
                return await self.ask(target, call)
            except MeshError as error:
                failures.append(str(error))
        raise NobodyAnswered("; ".join(failures))

    async def ask(self, target: str, call: Callable[[MeshChannel], Awaitable[_Reply]]) -> _Reply:
        """Ask one of them. Raises MeshError."""
        channel = self._network.channel(target, tls=self._tls)
        try:
            return await call(channel)
        finally:
            await channel.close()


def command_main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    from apogeemq.mesh.grpc_network import GrpcNetwork  # slow to import, and not needed to say what is wrong

    targets = [each.strip() for each in options.controller.replace(",", ";").split(";") if each.strip()]
    tls = ClientTls(ca=options.ca.read_bytes()) if options.ca else None
    controllers = Controllers(targets, GrpcNetwork(), tls)
    try:
        return asyncio.run(_run(options, controllers))
    except (NobodyAnswered, MeshError) as error:
        sys.stderr.write(f"apogeemq-controller: {error}\n")
        return 1


async def _run(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import CLEAN_BROKER, DESCRIBE_SETS, ELECT_MASTER, RECOVER_SET, SWITCH_LEARNER

    if options.command == "status":
        request = pb.DescribeSetsRequest(broker_name=options.broker_name or "")
        reply = await _describe(
            controllers, lambda channel: channel.unary(DESCRIBE_SETS, request, timeout_s=CALL_TIMEOUT_S)
        )
        sys.stdout.write(render(reply, options.output))
        return 0
    if options.command == "elect-master":
        elect = pb.ElectMasterRequest(broker_name=options.broker_name, broker_id=options.broker_id)
        return await _operate(controllers, ELECT_MASTER, elect)
    if options.command == "recover":
        recover = pb.RecoverSetRequest(broker_name=options.broker_name, broker_id=options.broker_id)
        return await _operate(controllers, RECOVER_SET, recover)
    if options.command == "set-learner":
        switch = pb.SwitchLearnerRequest(
            broker_name=options.broker_name, broker_id=options.broker_id, is_learner=options.is_learner
        )
        return await _operate(controllers, SWITCH_LEARNER, switch)
    clean = pb.CleanBrokerRequest(broker_name=options.broker_name, broker_id=options.broker_id or 0)
    return await _operate(controllers, CLEAN_BROKER, clean)


async def _describe(
    controllers: Controllers, call: Callable[[MeshChannel], Awaitable[pb.DescribeSetsReply]]
) -> pb.DescribeSetsReply:
    """What the active controller sees, or, where it cannot be reached, the first that answers."""
    reply = await controllers.ask_any(call)
    if reply.active in ("", reply.controller):
        return reply
    try:
        return await controllers.ask(reply.active, call)
    except MeshError as error:
        sys.stderr.write(f"apogeemq-controller: {error}; what follows is a stand-by's view\n")
        return reply


async def _operate(controllers: Controllers, method: Unary[Req, pb.OperatorReply], request: Req) -> int:
    """Have the active controller do it, whichever of them answers first."""

    def call(channel: MeshChannel) -> Awaitable[pb.OperatorReply]:
        return channel.unary(method, request, timeout_s=CALL_TIMEOUT_S)

    reply = await controllers.ask_any(call)
    if reply.refused.active:
        reply = await controllers.ask(reply.refused.active, call)
    if reply.HasField("refused"):
        sys.stderr.write(f"apogeemq-controller: refused with {reply.refused.code}: {reply.refused.text}\n")
        return 1
    state = reply.set_state
    master = f"broker {state.master_id}" if state.master_id else "nobody"
    sys.stdout.write(f"done: {master} is master of epoch {state.master_epoch}, set {list(state.members)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apogeemq-controller", description="Ask running controllers.")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="which controller is active, and what every broker set is like")
    status.add_argument("--broker-name", help="this broker set only")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    elect = commands.add_parser("elect-master", help="elect a master, also while there is one")
    elect.add_argument("--broker-name", required=True)
    elect.add_argument("--broker-id", type=int, default=0, help="who shall follow (default: by the order of elections)")
    clean = commands.add_parser("clean-broker", help="forget brokers that are gone for ever")
    clean.add_argument("--broker-name", required=True)
    which = clean.add_mutually_exclusive_group(required=True)
    which.add_argument("--broker-id", type=_broker_id)
    which.add_argument(
        "--whole-set", action="store_true", help="the set and all its brokers, none of whom may be alive"
    )
    recover = commands.add_parser(
        "recover", help="let a set that etcd forgot begin again with one broker: MAY LOSE what only others hold"
    )
    recover.add_argument("broker_name", metavar="BROKER_NAME")
    recover.add_argument(
        "--from",
        dest="broker_id",
        metavar="BROKER_ID",
        type=_broker_id,
        required=True,
        help="whose log holds from now on; it has to run",
    )
    learner = commands.add_parser("set-learner", help="let a broker copy only, or be a member of its set again")
    learner.add_argument("broker_name", metavar="BROKER_NAME")
    learner.add_argument("broker_id", metavar="BROKER_ID", type=_broker_id)
    how = learner.add_mutually_exclusive_group(required=True)
    how.add_argument("--on", dest="is_learner", action="store_true", help="it leaves the SyncStateSet first")
    how.add_argument("--off", dest="is_learner", action="store_false", help="its master adds it once it has caught up")
    for command in (status, elect, clean, recover, learner):
        command.add_argument(
            "--controller",
            default="127.0.0.1:9870",
            metavar="HOST:PORT",
            help="mesh endpoints, separated by semicolons",
        )
        command.add_argument("--ca", type=Path, metavar="FILE", help="speak TLS, and trust what this PEM file signed")
    return parser


def _broker_id(text: str) -> int:
    """0 would be the whole set, which has a flag of its own."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
