"""Journals are folded into the tables, as a broker does at a clean stop."""

import json
import re
from pathlib import Path

from apogeemq.store.config_journal import JournaledFile
from apogeemq.store.config_tables import fold_journals, journaled_tables
from apogeemq.store.memory_disk import MemoryDisk

CONFIG = Path("/store/config")


def write(disk: MemoryDisk, name: str, *texts: str) -> None:
    """A table, and the changes in its journal."""
    file = JournaledFile(disk, CONFIG / name)
    file.load()
    file.save(texts[0].encode())
    assert all(file.append(change.encode()) for change in texts[1:])
    file.close()


def table_of(disk: MemoryDisk, name: str) -> dict[str, object]:
    """What somebody reads who knows of no journal. Bare integer keys, fastjson's, are quoted for the json module."""
    text = re.sub(r"([{,]\s*)(\d+):", r'\1"\2":', disk.read_file(CONFIG / name).decode())
    table: dict[str, object] = json.loads(text)
    return table


def topic(name: str, queues: int) -> str:
    return f'"{name}":{{"topicName":"{name}","readQueueNums":{queues},"writeQueueNums":{queues},"perm":6}}'


def test_topics_and_groups() -> None:
    """An entry of a change replaces that of the table; the last change says the version; what is forbidden stays."""
    disk = MemoryDisk()
    version = '"dataVersion":{"counter":%d,"timestamp":5,"stateVersion":0}'
    write(
        disk,
        "topics.json",
        f'{{"topicConfigTable":{{{topic("A", 1)},{topic("B", 1)}}},{version % 1}}}',
        f'{{"topicConfigTable":{{{topic("B", 2)}}},{version % 2}}}',
        f'{{"topicConfigTable":{{{topic("C", 3)}}},{version % 3}}}',
    )
    write(
        disk,
        "subscriptionGroup.json",
        f'{{"subscriptionGroupTable":{{"G":{{"groupName":"G"}}}},"forbiddenTable":{{"G":{{"A":4}}}},{version % 1}}}',
        f'{{"subscriptionGroupTable":{{"H":{{"groupName":"H"}}}},{version % 2}}}',
    )
    assert journaled_tables(disk, CONFIG) == {"topics.json": 2, "subscriptionGroup.json": 1}
    fold_journals(disk, CONFIG, lambda topic, queue_id: 0)
    topics = table_of(disk, "topics.json")
    assert {name: config["readQueueNums"] for name, config in topics["topicConfigTable"].items()} == {  # type: ignore[attr-defined]
        "A": 1,
        "B": 2,
        "C": 3,
    }
    assert topics["dataVersion"]["counter"] == 3  # type: ignore[index]
    groups = table_of(disk, "subscriptionGroup.json")
    assert list(groups["subscriptionGroupTable"]) == ["G", "H"]  # type: ignore[call-overload]
    assert groups["forbiddenTable"] == {"G": {"A": 4}}
    assert journaled_tables(disk, CONFIG) == {}


def test_offsets() -> None:
    """A change names single queues; no consumer is left ahead of its queue."""
    disk = MemoryDisk()
    write(
        disk, "consumerOffset.json", '{"offsetTable":{"T@G":{0:5,1:7}}}', '{"offsetTable":{"T@G":{1:9},"T@H":{0:50}}}'
    )
    write(disk, "delayOffset.json", '{"offsetTable":{1:5,2:7}}', '{"offsetTable":{2:8}}')
    fold_journals(disk, CONFIG, lambda topic, queue_id: {("T", 0): 20, ("T", 1): 9}[topic, queue_id])
    assert table_of(disk, "consumerOffset.json")["offsetTable"] == {"T@G": {"0": 5, "1": 9}, "T@H": {"0": 20}}
    assert table_of(disk, "delayOffset.json")["offsetTable"] == {"1": 5, "2": 8}


def test_nothing_to_do_is_nothing_done() -> None:
    """Tables that are complete keep their bytes; what is not there is not made."""
    disk = MemoryDisk()
    text = '{"offsetTable":{"T@G":{0:5}},"more":1}'
    write(disk, "consumerOffset.json", text)
    fold_journals(disk, CONFIG, lambda topic, queue_id: 5)
    assert disk.read_file(CONFIG / "consumerOffset.json").decode() == text
    assert disk.size_of(CONFIG / "topics.json") is None
