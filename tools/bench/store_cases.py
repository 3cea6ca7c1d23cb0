"""The store alone, each case in a process and a directory of its own, beside what it is meant to cost."""

import dataclasses
import functools
import gc
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

from apogeemq.remoting_codec.message import encode_properties, tags_code
from apogeemq.remoting_codec.record import encode_host
from apogeemq.store.config import StoreConfig
from apogeemq.store.files import RealDisk, RealSegment
from apogeemq.store.message_store import MessageStore

from tools.bench.cases import in_process_of_its_own
from tools.bench.report import align

HOST = encode_host("127.0.0.1", 10911)
BODY = b"x" * 1024
PLAIN = encode_properties({"TAGS": "TagA"})
TAGS_CODE = tags_code("TagA")
KEYS_TEMPLATE = encode_properties({"KEYS": "order-%08d", "UNIQ_KEY": "7F0000010000000000000000%08d", "TAGS": "TagA"})
PULL_MESSAGES = 32

APPENDS_A_ROUND = 10_000
RECOVERED_MESSAGES = 200_000
LOG_FILES = 10
LOG_FILE_SIZE_BYTES = 16 << 20
QUEUES = 40_000
QUEUES_A_TOPIC = 8
MEMORY_STEP_MESSAGES = 1_000_000
MEMORY_QUEUES = 1_000
MEMORY_BASE_KIB = 64 << 10
MEMORY_PER_QUEUE_KIB = 2


@dataclasses.dataclass(frozen=True)
class Figure:
    """One thing measured several times. `target` is the most it may be, or the least where `more_is_better`."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    more_is_better: bool = False

    @property
    def best(self) -> float:
        """The round that was disturbed least."""
        return max(self.values) if self.more_is_better else min(self.values)

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the best round meets the target; None without one."""
        if self.target is None:
            return None
        return self.best >= self.target if self.more_is_better else self.best <= self.target


@dataclasses.dataclass(frozen=True)
class StoreRun:
    """What a case is told: where its directory may be made (None: the system's place), and how often it runs."""

    directory: str | None
    rounds: int


def measure(names: Sequence[str], run: StoreRun) -> list[Figure]:
    """The cases of these names, one after the other."""
    return [figure for name in names for figure in in_process_of_its_own(CASES[name], run)]


def table(figures: Sequence[Figure]) -> str:
    """One line a figure."""
    rows = [("figure", "best", "median", "target", "unit", "")]
    for figure in figures:
        sign = "≥" if figure.more_is_better else "≤"
        target = "-" if figure.target is None else f"{sign} {_number(figure.target)}"
        verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
        rows.append((figure.name, _number(figure.best), _number(figure.median), target, figure.unit, verdict))
    return "\n".join(align(rows))


# -- the cases: each runs in a fresh process ---------------------------------------------------------------------------


def append(run: StoreRun) -> list[Figure]:
    """CPU of the appending thread for one message with its consume-queue unit, without and with two keys indexed."""
    return [
        Figure("append, with its queue's unit", "µs CPU", tuple(_appends(run, index=False)), target=4),
        Figure("append, with two keys indexed", "µs CPU", tuple(_appends(run, index=True)), target=10),
    ]


def pull(run: StoreRun) -> list[Figure]:
    """CPU of one read of 32 messages from the log's recent part: of one queue alone, and of one among four."""
    figures = []
    with _directory(run) as directory, _opened(directory) as store:
        for topic, queues in (("alone", 1), ("among", 4)):
            _fill(store, 20_000, topic=topic, queues=queues)
            values = [_pulls(store, topic) for _ in range(run.rounds)]
            figures.append(Figure(f"pull of 32, a queue {topic} {queues}", "µs CPU", tuple(values), target=25))
    return figures


def recovery(run: StoreRun) -> list[Figure]:
    """Opening after a crash, messages a second of CPU, without and with an index to rebuild.

    The crash is a process that ends without closing.
    """
    figures = []
    for name, index in (("queues", False), ("queues and two keys indexed", True)):
        values = []
        for _ in range(run.rounds):
            with _directory(run) as directory:
                in_process_of_its_own(_die, (directory, index))
                started = time.process_time()
                store = _open(directory, index=index)
                values.append(RECOVERED_MESSAGES / (time.process_time() - started))
                assert store.recovery.queue_units_rebuilt == RECOVERED_MESSAGES, store.recovery
                store.close()
        figures.append(Figure(f"recovery, {name}", "messages/s", tuple(values), target=300_000, more_is_better=True))
    return figures


def clean_open(run: StoreRun) -> list[Figure]:
    """Opening a store of ten log files that was closed in good order; their size does not matter, they are not read."""
    with _directory(run) as directory:
        open_it = functools.partial(_open, directory, file_size_bytes=LOG_FILE_SIZE_BYTES, index=True)
        store = open_it()
        number = 0
        while store.written_offset < (LOG_FILES - 1) * LOG_FILE_SIZE_BYTES + LOG_FILE_SIZE_BYTES // 2:
            store.append("T", number & 3, 0, 0, 1, HOST, 0, 0, BODY, _keyed(number), TAGS_CODE)
            number += 1
        store.close()
        values = []
        for _ in range(run.rounds):
            started = time.perf_counter()
            store = open_it()
            values.append((time.perf_counter() - started) * 1e3)
            assert store.recovery.clean, store.recovery
            store.close()
    return [Figure("clean open of ten files", "ms", tuple(values), target=300)]


def queues(run: StoreRun) -> list[Figure]:
    """Opening 40,000 queues after a clean stop: time, descriptors, maps, memory that belongs to nobody else."""
    with _directory(run) as directory:
        in_process_of_its_own(_make_queues, directory)
        elapsed_s, cpu_s, descriptors, maps, anonymous_kib = zip(
            *[in_process_of_its_own(_open_queues, directory) for _ in range(run.rounds)], strict=True
        )
    target_mib = (MEMORY_BASE_KIB + QUEUES * MEMORY_PER_QUEUE_KIB) / 1024
    return [
        Figure("40,000 queues, opening", "s", elapsed_s, target=5),
        Figure("40,000 queues, CPU of it", "s CPU", cpu_s),
        Figure("40,000 queues, descriptors", "", descriptors, target=5_000),
        Figure("40,000 queues, maps", "", maps, target=5_000),
        Figure("40,000 queues, anonymous memory", "MiB", tuple(kib / 1024 for kib in anonymous_kib), target=target_mib),
    ]


def memory(run: StoreRun) -> list[Figure]:
    """Anonymous memory while millions of small messages go to a thousand queues, their keys indexed."""
    target_mib = (MEMORY_BASE_KIB + MEMORY_QUEUES * MEMORY_PER_QUEUE_KIB) / 1024
    figures = []
    with _directory(run) as directory, _opened(directory, index=True) as store:
        for step in range(1, 4):
            samples = []
            for number in range(MEMORY_STEP_MESSAGES):
                topic, queue_id = "T", number % MEMORY_QUEUES
                store.append(topic, queue_id, 0, 0, 1, HOST, 0, 0, b"x" * 100, _keyed(number), TAGS_CODE)
                if number % 100_000 == 0:
                    samples.append(_anonymous_kib() / 1024)
            name = f"anonymous memory, {step} million messages, 1,000 queues"
            figures.append(Figure(name, "MiB", tuple(samples), target=target_mib))
    return figures


def sync(run: StoreRun) -> list[Figure]:
    """One message and its flush: what a lone sender of class fsync waits at least. This is the disk's figure."""
    values = []
    with _directory(run) as directory, _opened(directory) as store:
        for number in range(100 * run.rounds):
            store.append("T", number & 3, 0, 0, 1, HOST, 0, 0, BODY, PLAIN, TAGS_CODE)
            started = time.perf_counter()
            store.flush()
            values.append((time.perf_counter() - started) * 1e3)
    return [Figure("sync of one message", "ms", tuple(values))]


CASES: dict[str, Callable[[StoreRun], list[Figure]]] = {
    "append": append,
    "pull": pull,
    "recovery": recovery,
    "clean-open": clean_open,
    "queues": queues,
    "memory": memory,
    "sync": sync,
}


# -- their parts -------------------------------------------------------------------------------------------------------


class _UnsyncedDisk(RealDisk):
    """The real one without syncs of segments: to make what only the opening is measured of."""

    def open_segment(self, path: pathlib.Path, size_bytes: int, *, create: bool = False) -> RealSegment:
        segment = super().open_segment(path, size_bytes, create=create)
        segment.sync = _no_sync  # type: ignore[method-assign]  # this one object's
        return segment


def _no_sync() -> None:
    return None


def _directory(run: StoreRun) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="apogeemq-bench-", dir=run.directory)


def _open(
    directory: str, *, index: bool = False, file_size_bytes: int = 1 << 30, disk: RealDisk | None = None
) -> MessageStore:
    config = StoreConfig(store_host=HOST, commit_log_file_size_bytes=file_size_bytes, index_enabled=index)
    return MessageStore.open(pathlib.Path(directory), config, now_ms=_now_ms, disk=disk)


def _opened(directory: str, *, index: bool = False) -> MessageStore:
    """A store for a with statement, in a process that collects no garbage: it has little, and none that matters."""
    gc.disable()
    return _open(directory, index=index)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _keyed(number: int) -> bytes:
    """Properties with a key and a unique key of their own."""
    return KEYS_TEMPLATE % (number, number)


def _fill(store: MessageStore, messages: int, *, topic: str = "T", queues: int = 4) -> None:
    for number in range(messages):
        store.append(topic, number % queues, 0, 0, 1, HOST, 0, 0, BODY, PLAIN, TAGS_CODE)


def _appends(run: StoreRun, *, index: bool) -> list[float]:
    """µs of this thread's CPU per append, by round; the first round, which touches everything first, is left out."""
    values = []
    with _directory(run) as directory, _opened(directory, index=index) as store:
        for at in range(3 * run.rounds + 1):
            first = at * APPENDS_A_ROUND
            properties = [_keyed(number) if index else PLAIN for number in range(first, first + APPENDS_A_ROUND)]
            started = time.thread_time()
            for number, encoded in enumerate(properties):
                store.append("T", number & 3, 0, 0, 1, HOST, 0, 0, BODY, encoded, TAGS_CODE)
            values.append((time.thread_time() - started) / APPENDS_A_ROUND * 1e6)
    return values[1:]


def _pulls(store: MessageStore, topic: str) -> float:
    """µs of this thread's CPU per read of 32, through a whole queue."""
    offset, end, reads = 0, store.max_offset(topic, 0) - PULL_MESSAGES, 0
    started = time.thread_time()
    while offset < end:
        result = store.read(topic, 0, offset, PULL_MESSAGES, 1 << 20, None)
        assert result.count == PULL_MESSAGES, result
        offset = result.next_offset
        reads += 1
    return (time.thread_time() - started) / reads * 1e6


def _die(case: tuple[str, bool]) -> None:
    """Store messages and be gone; the process ends without closing the store."""
    directory, index = case
    store = _open(directory, index=index)
    for number in range(RECOVERED_MESSAGES):
        properties = _keyed(number) if index else PLAIN
        store.append("T", number & 3, 0, 0, 1, HOST, 0, 0, BODY, properties, TAGS_CODE)


def _make_queues(directory: str) -> None:
    with _open(directory, disk=_UnsyncedDisk()) as store:
        for _ in range(3):
            for number in range(QUEUES):
                topic, queue_id = f"topic-{number // QUEUES_A_TOPIC}", number % QUEUES_A_TOPIC
                store.append(topic, queue_id, 0, 0, 1, HOST, 0, 0, b"x", PLAIN, TAGS_CODE)


def _open_queues(directory: str) -> tuple[float, float, int, int, int]:
    """Seconds, CPU seconds, descriptors, maps, anonymous KiB."""
    started, started_cpu = time.perf_counter(), time.process_time()
    with _open(directory) as store:
        elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        assert store.recovery.clean, store.recovery
        assert len(list(store.queues())) == QUEUES
        maps = len(pathlib.Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines())
        return elapsed_s, cpu_s, len(os.listdir("/proc/self/fd")), maps, _anonymous_kib()  # noqa: PTH208 — only a count


def _anonymous_kib() -> int:
    """What this process has in memory that no file backs."""
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise LookupError("the kernel tells no anonymous memory in smaps_rollup")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
