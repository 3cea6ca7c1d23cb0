"""What a repair would do to a store, and what that would cost: worked out without changing anything."""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import msgspec
from apogeemq.store.log_walk import BadRange, LogWalk
from apogeemq.store.segment_files import segment_path
from apogeemq.store.skip_records import encode_fill
from apogeemq.store.store_check import json_fault
from apogeemq.store.store_layout import file_starts
from apogeemq.store.store_view import OnProgress, StoreView

QueueName = tuple[str, int]
"""Topic and queue id."""


class RepairMode(StrEnum):
    """What to do about damage in the log."""

    TRUNCATE = "truncate"
    """End the log before the first damage. Everything behind it is lost, good messages too."""
    SKIP = "skip"
    """Replace what is damaged by records that stand for nothing. Only what is damaged is lost."""


class CutLog(msgspec.Struct, frozen=True, kw_only=True):
    """End the log at `physical_offset`; `end` is where its data ended."""

    physical_offset: int
    end: int
    problem: str
    lost: dict[QueueName, int]
    """Readable messages behind the cut, by queue."""


class FillRange(msgspec.Struct, frozen=True, kw_only=True):
    """Replace [start, end), part of one file."""

    start: int
    end: int
    is_file_end: bool
    is_missing: bool
    """The whole file is not there: it is made."""
    problem: str
    store_timestamp_ms: int


class LowerFlushedOffset(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint says that more was synced than there is: accept the loss."""

    flushed_offset: int
    physical_offset: int


class RestoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Put the backup of a table in the place of the damaged file."""

    path: Path
    backup: Path
    problem: str


class Unrepairable(msgspec.Struct, frozen=True, kw_only=True):
    """Something that no repair can mend; `advice` says what else helps."""

    what: str
    advice: str


RepairStep = CutLog | FillRange | LowerFlushedOffset | RestoreConfig | Unrepairable


class _Damage(msgspec.Struct):
    """What one walk through the log finds out."""

    ranges: list[tuple[BadRange, int]]
    """Each with the store timestamp of the record before it."""
    end: int
    lost: Counter[QueueName]
    """Readable messages behind the first range."""


def plan_repair(view: StoreView, mode: RepairMode, *, on_progress: OnProgress | None = None) -> list[RepairStep]:
    """The steps, in the order in which to do them; none when nothing is to be repaired.

    A torn tail that the next opening cuts off by itself is no damage. Consume queues are not looked at: `rebuild` is
    for them.
    """
    damage = _find_damage(view, on_progress)
    steps: list[RepairStep] = []
    oversized = [fault for fault in view.log_faults if view.disk.size_of(fault.path) is not None]
    steps += [
        Unrepairable(what=str(fault), advice="give the size that the log was made with, --commit-log-file-size")
        for fault in oversized
    ]
    if damage.ranges and not oversized:
        steps += _cut(view, damage) if mode is RepairMode.TRUNCATE else _fill(view, damage)
    cuts = [step.physical_offset for step in steps if isinstance(step, CutLog)]
    end = min([damage.end, *cuts])
    if view.checkpoint.master_flushed_offset > end:
        steps.append(LowerFlushedOffset(flushed_offset=view.checkpoint.master_flushed_offset, physical_offset=end))
    steps += _config_steps(view)
    return steps


def _find_damage(view: StoreView, on_progress: OnProgress | None) -> _Damage:
    damage = _Damage([], view.log_min_offset, Counter())
    gaps = [(before.end, after.min_offset) for before, after in pairwise(view.log_parts)]
    timestamp_ms = 0
    walk = LogWalk(view, on_progress=on_progress)
    for step in walk:
        position = step.start if isinstance(step, BadRange) else step[0].physical_offset if step else 0
        while gaps and gaps[0][1] <= position:
            start, end = gaps.pop(0)
            # Zeros behind the last record of what lies before the gap are no better than the gap.
            start = min(start, max(walk.end, damage.end))
            damage.ranges.append((BadRange(start, end, "files are missing", is_tail=False), timestamp_ms))
        if isinstance(step, BadRange):
            if not view.is_clean and step.start >= view.checkpoint.master_flushed_offset:
                return damage
            if step.is_tail and gaps:
                continue  # it is part of the range that the gap begins
            damage.ranges.append((step, timestamp_ms))
            continue
        for record in step:
            timestamp_ms = record.store_timestamp_ms
            if damage.ranges:
                damage.lost[record.topic.decode(errors="replace"), record.queue_id] += 1
        if step:
            damage.end = step[-1].physical_offset + step[-1].size_bytes
    damage.end = max(damage.end, walk.end)
    return damage


def _cut(view: StoreView, damage: _Damage) -> Iterator[RepairStep]:
    first = damage.ranges[0][0]
    last = view.log_parts[-1]
    yield CutLog(
        physical_offset=first.start,
        end=max(last.data_end(last.min_offset), first.end),
        problem=first.problem,
        lost=dict(damage.lost),
    )


def _fill(view: StoreView, damage: _Damage) -> Iterator[RepairStep]:
    for bad, timestamp_ms in damage.ranges:
        if bad.is_tail and bad.end >= damage.end:
            # Nothing good comes behind it: no reason to keep the place.
            yield CutLog(physical_offset=bad.start, end=bad.end, problem=bad.problem, lost={})
            continue
        for piece in _pieces(view, bad, timestamp_ms):
            try:
                encode_fill(
                    piece.start,
                    piece.end,
                    is_file_end=piece.is_file_end,
                    record_size_bytes_max=view.record_size_bytes_max,
                    store_timestamp_ms=timestamp_ms,
                )
            except ValueError as error:
                yield Unrepairable(
                    what=f"[{piece.start}, {piece.end}) of the log cannot be filled: {error}",
                    advice="repair with --truncate, or bring the file back from a replica or a backup",
                )
            else:
                yield piece


def _pieces(view: StoreView, bad: BadRange, timestamp_ms: int) -> Iterator[FillRange]:
    """The range, cut at the borders of files."""
    file_size_bytes = view.layout.commit_log_file_size_bytes
    present = set(file_starts(view.disk, view.directory / "commitlog"))
    start = bad.start
    while start < bad.end:
        file_start = start - (start - view.log_min_offset) % file_size_bytes
        end = min(bad.end, file_start + file_size_bytes)
        yield FillRange(
            start=start,
            end=end,
            is_file_end=end == file_start + file_size_bytes,
            is_missing=file_start not in present,
            problem=bad.problem,
            store_timestamp_ms=timestamp_ms,
        )
        start = end


def _config_steps(view: StoreView) -> Iterator[RepairStep]:
    directory = view.directory / "config"
    for name in view.disk.list_dir(directory):
        path, backup = directory / name, directory / (name + ".bak")
        if not name.endswith(".json") or (fault := json_fault(view, path)) is None:
            continue
        if view.disk.size_of(backup) is not None and json_fault(view, backup) is None:
            yield RestoreConfig(path=path, backup=backup, problem=fault)
        else:
            yield Unrepairable(
                what=f"{view.relative(path)} is damaged and has no whole backup: {fault}",
                advice="bring it back, or remove it to start without what it said",
            )


def describe_step(view: StoreView, step: RepairStep) -> str:
    """One line for people."""
    if isinstance(step, CutLog):
        lost = sum(step.lost.values())
        return (
            f"cut the log at physical offset {step.physical_offset} ({step.problem}): "
            f"{step.end - step.physical_offset} bytes go, {lost} readable messages among them"
        )
    if isinstance(step, FillRange):
        where = f"[{step.start}, {step.end}) in {segment_path(Path('commitlog'), _file_of(view, step))}"
        verb = "make the missing file and fill" if step.is_missing else "fill"
        return f"{verb} {where} with records that stand for nothing ({step.problem})"
    if isinstance(step, LowerFlushedOffset):
        return (
            f"lower the checkpoint's flushed offset from {step.flushed_offset} to {step.physical_offset}, "
            "where the log ends: what was synced behind it is lost"
        )
    if isinstance(step, RestoreConfig):
        return f"restore {view.relative(step.path)} from {step.backup.name} ({step.problem})"
    return f"cannot be repaired: {step.what}; {step.advice}"


def _file_of(view: StoreView, step: FillRange) -> int:
    return step.start - (step.start - view.log_min_offset) % view.layout.commit_log_file_size_bytes
