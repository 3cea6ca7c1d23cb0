"""`apogeemq admin`: what operators ask a running cluster.

    apogeemq admin ha status --controller "10.0.0.1:9870;10.0.0.2:9870"
    apogeemq admin ha elect broker-a --broker-id 2
    apogeemq admin ha recover broker-a --from 2

`ha` are the commands of `apogeemq-controller` (apogeemq.controller.commands): broker sets, their masters, elections.
Exit codes: 0 done, 1 refused or nobody answered, 2 wrong arguments.
"""

from __future__ import annotations

import argparse

PROGRAM = "apogeemq admin ha"


def add_parser(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    from apogeemq.controller.commands import add_commands, run_command

    parser = subcommands.add_parser(
        "admin", help="ask a running cluster, and change it", description="Ask a running cluster, and change it."
    )
    rooms = parser.add_subparsers(dest="room", required=True, metavar="WHAT")
    ha = rooms.add_parser(
        "ha",
        help="broker sets: who is master, who holds everything, elections",
        description="Broker sets: who is master, who holds everything, elections. Controllers answer.",
    )
    commands = ha.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands, program=PROGRAM, elect="elect", named_by_option=False)
    ha.set_defaults(run=run_command)
