"""Replacing a whole directory of derived files so that a crash leaves the old one or the new one.

```
consumequeue.rebuilding/   being built: worth nothing, removed by the next opening
consumequeue.rebuilt/      complete and synced: the next opening puts it in place
consumequeue.replaced/     the old one, while it is being removed
```
The rename from `rebuilding` to `rebuilt` is the moment that decides. Everything after it can be done again.
"""

import shutil
from pathlib import Path

from apogeemq.store.files import Disk

SWAPPED_NAMES = ("consumequeue", "index")
"""The directories that are derived from the log and replaced this way."""

_BUILDING = ".rebuilding"
_COMPLETE = ".rebuilt"
_OLD = ".replaced"


def begin_swap(disk: Disk, directory: Path, name: str) -> Path:
    """Where to build the new one; what an interrupted build left there is gone."""
    building = directory / (name + _BUILDING)
    _remove_tree(disk, building)
    return building


def commit_swap(disk: Disk, directory: Path, name: str) -> None:
    """The new one is complete and synced: put it in place of the old one. Nothing built means an empty directory."""
    building = directory / (name + _BUILDING)
    building.mkdir(exist_ok=True)
    disk.sync_dir(building)
    disk.rename(building, directory / (name + _COMPLETE))
    disk.sync_dir(directory)
    finish_swap(disk, directory, name)


def finish_swaps(disk: Disk, directory: Path) -> None:
    """Finish, or forget, what was interrupted. For the opening of a store, with the directory locked."""
    names = disk.list_dir(directory)
    for name in SWAPPED_NAMES:
        if name + _BUILDING in names:
            _remove_tree(disk, directory / (name + _BUILDING))
        if name + _COMPLETE in names or name + _OLD in names:
            finish_swap(disk, directory, name)


def finish_swap(disk: Disk, directory: Path, name: str) -> None:
    """From whatever step after the commit an interruption left."""
    current, complete, old = directory / name, directory / (name + _COMPLETE), directory / (name + _OLD)
    names = disk.list_dir(directory)
    if complete.name in names:
        if name in names:
            _remove_tree(disk, old)
            disk.rename(current, old)
        disk.rename(complete, current)
        disk.sync_dir(directory)
    _remove_tree(disk, old)


def _remove_tree(disk: Disk, path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        disk.sync_dir(path.parent)
