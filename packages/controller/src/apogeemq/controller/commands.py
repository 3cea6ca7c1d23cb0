"""What operators ask running controllers: `apogeemq-controller status | elect-master | …`, `apogeemq admin ha …`.

    apogeemq-controller status --controller 10.0.0.1:9870;10.0.0.2:9870 -o json
    apogeemq-controller elect-master --broker-name broker-a --broker-id 2
    apogeemq-controller clean-broker --broker-name broker-a --broker-id 3
    apogeemq-controller recover broker-a --from 2
    apogeemq-controller set-learner broker-a 3 --on
    apogeemq admin ha status broker-a
    apogeemq admin ha elect broker-a --broker-id 2

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

    def __init__(
        self, targets: Sequence[str], network: Network, tls: ClientTls | None, *, program: str = "apogeemq-controller"
    ) -> None:
        self.program = program
        """What its user called, for what goes wrong."""
        self.targets = targets
        self._network = network
        self._tls = tls

    async def ask_any(self, call: Callable[[MeshChannel], Awaitable[_Reply]]) -> _Reply:
        """Give the first answer. Raises NobodyAnswered."""
        failures = []
        for target in self.targets:
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
    """Run one command of `apogeemq-controller`; return the exit code."""
    parser = argparse.ArgumentParser(prog="apogeemq-controller", description="Ask running controllers.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_commands(commands, program="apogeemq-controller", elect="elect-master", named_by_option=True)
    return run_command(parser.parse_args(arguments))


def run_command(options: argparse.Namespace) -> int:
    """Carry out what a parser of add_commands() read; return the exit code."""
    from apogeemq.mesh.grpc_network import GrpcNetwork  # slow to import, and not needed to say what is wrong

    targets = [each.strip() for each in options.controller.replace(",", ";").split(";") if each.strip()]
    if not targets:
        sys.stderr.write(f"{options.program}: --controller names no controller; it must be HOST:PORT;HOST:PORT\n")
        return 2
    try:
        tls = ClientTls(ca=options.ca.read_bytes()) if options.ca else None
    except OSError as error:
        sys.stderr.write(f"{options.program}: --ca {options.ca} cannot be read: {error.strerror}\n")
        return 2
    controllers = Controllers(targets, GrpcNetwork(), tls, program=options.program)
    try:
        code: int = asyncio.run(options.ask(options, controllers))
    except (NobodyAnswered, MeshError) as error:
        sys.stderr.write(f"{options.program}: {error}\n")
        return 1
    return code


async def _status(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import DESCRIBE_SETS

    request = pb.DescribeSetsRequest(broker_name=options.broker_name or "")
    reply = await describe(controllers, lambda channel: channel.unary(DESCRIBE_SETS, request, timeout_s=CALL_TIMEOUT_S))
    sys.stdout.write(render(reply, options.output))
    if options.broker_name and not reply.sets:
        sys.stderr.write(f"{options.program}: there is no broker set {options.broker_name}\n")
        return 1
    return 0


async def _elect(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import ELECT_MASTER

    request = pb.ElectMasterRequest(broker_name=options.broker_name, broker_id=options.broker_id)
    return await _operate(controllers, ELECT_MASTER, request)


async def _clean(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import CLEAN_BROKER

    request = pb.CleanBrokerRequest(broker_name=options.broker_name, broker_id=options.broker_id or 0)
    return await _operate(controllers, CLEAN_BROKER, request)


async def _recover(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import RECOVER_SET

    request = pb.RecoverSetRequest(broker_name=options.broker_name, broker_id=options.broker_id)
    return await _operate(controllers, RECOVER_SET, request)


async def _switch_learner(options: argparse.Namespace, controllers: Controllers) -> int:
    from apogeemq.mesh.v1 import controller_pb2 as pb
    from apogeemq.mesh.v1.methods import SWITCH_LEARNER

    request = pb.SwitchLearnerRequest(
        broker_name=options.broker_name, broker_id=options.broker_id, is_learner=options.is_learner
    )
    return await _operate(controllers, SWITCH_LEARNER, request)


async def describe(
    controllers: Controllers, call: Callable[[MeshChannel], Awaitable[pb.DescribeSetsReply]]
) -> pb.DescribeSetsReply:
    """What the active controller sees, or, where nobody that answers is active, the first of them.

    One that is cut off from etcd may name a controller that is active no longer, or nobody: all are asked then.
    """
    replies: list[pb.DescribeSetsReply] = []
    failures: list[str] = []
    asked: set[str] = set()
    targets = list(controllers.targets)
    while targets:
        target = targets.pop(0)
        if target in asked:
            continue
        asked.add(target)
        try:
            reply = await controllers.ask(target, call)
        except MeshError as error:
            failures.append(str(error))
            continue
        if reply.active == reply.controller:
            return reply
        replies.append(reply)
        if reply.active:
            targets.insert(0, reply.active)
    if not replies:
        raise NobodyAnswered("; ".join(failures))
    why = "; ".join(failures) or "no controller is active"
    sys.stderr.write(f"{controllers.program}: {why}; what follows is a stand-by's view\n")
    return replies[0]


async def _operate(controllers: Controllers, method: Unary[Req, pb.OperatorReply], request: Req) -> int:
    """Have the active controller do it, whichever of them answers first."""

    def call(channel: MeshChannel) -> Awaitable[pb.OperatorReply]:
        return channel.unary(method, request, timeout_s=CALL_TIMEOUT_S)

    reply = await controllers.ask_any(call)
    if reply.refused.active:
        reply = await controllers.ask(reply.refused.active, call)
    if reply.HasField("refused"):
        sys.stderr.write(f"{controllers.program}: refused with {reply.refused.code}: {reply.refused.text}\n")
        return 1
    state = reply.set_state
    master = f"broker {state.master_id}" if state.master_id else "nobody"
    sys.stdout.write(f"done: {master} is master of epoch {state.master_epoch}, set {list(state.members)}\n")
    return 0


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    *,
    program: str,
    elect: str,
    named_by_option: bool,
) -> None:
    """Declare all commands; run_command() carries out what is read.

    Args:
        program: what errors begin with.
        elect: the word for an election.
        named_by_option: a broker set is named after --broker-name, where Apache's tools do so; else by its place.
    """
    status = commands.add_parser("status", help="which controller is active, and what every broker set is like")
    if named_by_option:
        status.add_argument("--broker-name", help="this broker set only")
    else:
        status.add_argument("broker_name", metavar="BROKER_NAME", nargs="?", help="this broker set only")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    status.set_defaults(ask=_status)
    electing = commands.add_parser(elect, help="elect a master, also while there is one")
    _add_name(electing, by_option=named_by_option)
    electing.add_argument(
        "--broker-id", type=int, default=0, help="who shall follow (default: by the order of elections)"
    )
    electing.set_defaults(ask=_elect)
    clean = commands.add_parser("clean-broker", help="forget brokers that are gone for ever")
    _add_name(clean, by_option=named_by_option)
    which = clean.add_mutually_exclusive_group(required=True)
    which.add_argument("--broker-id", type=_broker_id)
    which.add_argument(
        "--whole-set", action="store_true", help="the set and all its brokers, none of whom may be alive"
    )
    clean.set_defaults(ask=_clean)
    recover = commands.add_parser(
        "recover", help="let a set that etcd forgot begin again with one broker: MAY LOSE what only others hold"
    )
    _add_name(recover, by_option=False)
    recover.add_argument(
        "--from",
        dest="broker_id",
        metavar="BROKER_ID",
        type=_broker_id,
        required=True,
        help="whose log holds from now on; it has to run",
    )
    recover.set_defaults(ask=_recover)
    _add_set_learner(commands)
    for command in commands.choices.values():
        command.set_defaults(program=program)
        command.add_argument(
            "--controller",
            default="127.0.0.1:9870",
            metavar="HOST:PORT",
            help="mesh endpoints, separated by semicolons; the active controller answers (default: %(default)s)",
        )
        command.add_argument("--ca", type=Path, metavar="FILE", help="speak TLS, and trust what this PEM file signed")


def _add_set_learner(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    learner = commands.add_parser("set-learner", help="let a broker copy only, or be a member of its set again")
    _add_name(learner, by_option=False)
    learner.add_argument("broker_id", metavar="BROKER_ID", type=_broker_id)
    how = learner.add_mutually_exclusive_group(required=True)
    how.add_argument("--on", dest="is_learner", action="store_true", help="it leaves the SyncStateSet first")
    how.add_argument("--off", dest="is_learner", action="store_false", help="its master adds it once it has caught up")
    learner.set_defaults(ask=_switch_learner)


def _add_name(command: argparse.ArgumentParser, *, by_option: bool) -> None:
    if by_option:
        command.add_argument("--broker-name", required=True)
    else:
        command.add_argument("broker_name", metavar="BROKER_NAME")


def _broker_id(text: str) -> int:
    """0 would be the whole set, which has a flag of its own."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
