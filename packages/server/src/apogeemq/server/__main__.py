"""`apogeemq`: the command of the all-in-one. One module per subcommand, imported only when it is asked for."""

import argparse
import importlib.metadata
from collections.abc import Sequence

from apogeemq.server import admin, decode, up


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code."""
    parser = argparse.ArgumentParser(prog="apogeemq", description="ApogeeMQ: a message queue for RocketMQ's clients.")
    parser.add_argument("--version", action="version", version=f"apogeemq {importlib.metadata.version('apogeemq')}")
    subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    up.add_parser(subcommands)
    admin.add_parser(subcommands)
    decode.add_parser(subcommands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
