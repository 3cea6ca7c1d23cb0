"""`./task sim -- SEED`: one run, with its trace; `./task sim -- FIRST LAST`: many, with those that break something;
`./task sim -- mutants`: for each mutant the first seed that catches it (after a change of what seeds choose).
`./task sim -- --script NAME`: a story of scripts/, and how its trace differs from the one that was reviewed; without a
name: all names. `./task sim -- --rewrite [NAME …]`: write traces anew, then read what git says has changed.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from tests.simulation import script
from tests.simulation.cluster import run
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import InvariantBrokenError

MUTANT_SEEDS = 3_000


def main(arguments: list[str]) -> int:
    """Give 1 when an invariant was broken."""
    if arguments == ["mutants"]:
        return _catch_mutants()
    if arguments[:1] == ["--script"]:
        return _show(arguments[1:])
    if arguments[:1] == ["--rewrite"]:
        return _rewrite(arguments[1:])
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


def _show(names: list[str]) -> int:
    """Give 1 when one went otherwise than it is told."""
    if not names:
        print("\n".join(script.names()))
    differences = [script.difference(name) for name in names]
    for name, difference in zip(names, differences, strict=True):
        print(difference or script.path_of(name).read_text())
    return any(differences)


def _rewrite(names: list[str]) -> int:
    for name in names or script.names():
        path = script.path_of(name)
        path.write_text(script.replay(path.read_text()))
        print(path)
    return 0


def _catch_mutants() -> int:
    """Give 1 when one of them gets away."""
    got_away = False
    for name in MUTANTS:
        seed = next(filter(partial(_catches, name), range(MUTANT_SEEDS)), None)
        print(f'    "{name}": {seed},', flush=True)
        got_away = got_away or seed is None
    return got_away


def _catches(name: str, seed: int) -> bool:
    try:
        run(seed, MUTANTS[name]())
    except AssertionError:
        return True
    return False


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
