"""Topics and groups for a broker that was never started: the files under config/, as an operator moves them over.

Until administrators' requests are served, this is how a test gets a topic with a message.type or an orderly group.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping

QUEUES = 4
READ = 4
READ_WRITE = 6

_DATA_VERSION = {"counter": 1, "stateVersion": 0, "timestamp": 1795356820996}

Config = Mapping[str, object]


def topic_config(
    name: str, *, perm: int = READ_WRITE, write_queues: int = QUEUES, message_type: str | None = None
) -> Config:
    """One topic as topics.json has it."""
    return {
        "topicName": name,
        "readQueueNums": QUEUES,
        "writeQueueNums": write_queues,
        "perm": perm,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": False,
        "attributes": {} if message_type is None else {"message.type": message_type},
    }


def group_config(name: str, **more: object) -> Config:
    """One group as subscriptionGroup.json has it."""
    return {"groupName": name, "retryQueueNums": 1, "consumeEnable": True, **more}


def write_config_files(directory: pathlib.Path, topics: Iterable[Config], groups: Iterable[Config] = ()) -> None:
    """Write topics.json, and subscriptionGroup.json where there are groups, into a directory that is made."""
    directory.mkdir(parents=True)
    _write(directory / "topics.json", "topicConfigTable", {str(one["topicName"]): one for one in topics})
    if table := {str(one["groupName"]): one for one in groups}:
        _write(directory / "subscriptionGroup.json", "subscriptionGroupTable", table)


def _write(path: pathlib.Path, name: str, table: Mapping[str, Config]) -> None:
    path.write_text(json.dumps({"dataVersion": _DATA_VERSION, name: table}))
