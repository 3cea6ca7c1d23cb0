"""A real disk on which a process ends in the middle of its work."""

from pathlib import Path

from apogeemq.store.files import RealDisk


class Stopped(Exception):  # noqa: N818
    """The process ends here."""


class StoppingDisk(RealDisk):
    """Ends the process at a certain call that changes names or waits for the disk."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped

    def rename(self, source: Path, target: Path) -> None:
        self.step()
        super().rename(source, target)

    def sync_dir(self, path: Path) -> None:
        self.step()
        super().sync_dir(path)
