"""`apogeemq-store`: looking into a store directory, checking it, and mending it.

Exit codes: 0 fine, 1 something is wrong with the store, 2 wrong arguments or a directory that cannot be used,
130 interrupted, 141 nobody reads the output any more.
"""

import argparse
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence

from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.commands import check, convert, index, queue, rebuild, records, repair
from apogeemq.store.errors import LayoutInvalid, RecordCorrupt, StoreError, StoreInUse
from apogeemq.store.lock_holder import describe_holder

_DAMAGED = 1
_UNUSABLE = 2
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would try to flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except StoreInUse as error:
        holder = describe_holder(error.directory)
        return _fail(f"{error.directory} is in use by {holder}: stop it first, or copy the directory and use the copy")
    except LayoutInvalid as error:
        return _fail(f"{error}\nif the sizes of files were found out wrongly, give --commit-log-file-size or "
                     "--consume-queue-file-size; else see apogeemq-store check")  # fmt: skip
    except RecordCorrupt as error:
        sys.stderr.write(f"apogeemq-store: {error}\nsee apogeemq-store check and apogeemq-store repair\n")
        return _DAMAGED
    except BodyInvalid as error:
        return _fail(f"a table under config/ cannot be read: {error}; see apogeemq-store check and repair")
    except (StoreError, OSError) as error:
        return _fail(str(error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apogeemq-store",
        description="Look into the store directory of a stopped broker (ours or Apache RocketMQ's), check it, mend it.",
    )
    version = importlib.metadata.version("apogeemq-store")
    parser.add_argument("--version", action="version", version=f"apogeemq-store {version}")
    subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for module in (check, records, queue, index, rebuild, repair, convert):
        module.add_parser(subcommands)
    return parser


def _fail(text: str) -> int:
    sys.stderr.write(f"apogeemq-store: {text}\n")
    return _UNUSABLE


if __name__ == "__main__":
    raise SystemExit(main())
