"""`./task sim -- SEED`: one run, with its trace; `./task sim -- FIRST LAST`: many, with those that break something."""

from __future__ import annotations

import sys
import time

from tests.simulation.cluster import run
from tests.simulation.world import InvariantBrokenError


def main(arguments: list[str]) -> int:
    """Give 1 when an invariant was broken."""
    first = int(arguments[0]) if arguments else 0
    last = int(arguments[1]) if len(arguments) > 1 else first
    began = time.monotonic()
    broken = []
    for seed in range(first, last + 1):
        try:
            cluster = run(seed)
        except InvariantBrokenError as error:
            broken.append(seed)
            print(f"seed {seed}: {error}")
            if first == last:
                print("\n".join(error.__notes__))
            continue
        if first == last:
            print("\n".join(cluster.world.trace))
            print(f"{cluster.checkers.acknowledged_count} acknowledged, {cluster.checkers.lost_count} lost as allowed")
    seconds = time.monotonic() - began
    print(f"{last - first + 1} seeds in {seconds:.1f} s, broken: {broken}")
    return bool(broken)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
