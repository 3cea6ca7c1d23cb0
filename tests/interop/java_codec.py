"""Apache's own codec, request signing and SQL92 filter as something to ask: the driver of tests/interop/java-codec."""

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Iterable, Mapping

VERSIONS = ("5.3.3", "5.5.0")
JVM_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
ANSWER_TIMEOUT_S = 60.0

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]
Question = Mapping[str, object]
Answer = dict[str, Json]


@dataclasses.dataclass(frozen=True)
class JavaCodec:
    """The driver, built for one version of Apache's libraries."""

    version: str
    java: str
    class_path: str
    log_directory: pathlib.Path

    def answers(self, questions: Iterable[Question]) -> list[Answer]:
        """The answer to each question, in their order. One process answers them all: a start costs half a second."""
        # The libraries write log files, and would write them into the home directory.
        logs = [
            f"-D{name}={self.log_directory}" for name in ("rocketmq.client.logRoot", "rocketmq.log.root", "user.home")
        ]
        argv = [self.java, *JVM_OPTIONS, *logs, "-cp", self.class_path, "apogeemq.interop.codec.CodecDriver"]
        asked = [json.dumps(question) for question in questions]
        done = subprocess.run(
            argv, input="\n".join(asked), capture_output=True, encoding="utf-8", timeout=ANSWER_TIMEOUT_S, check=False
        )
        given = done.stdout.split("\n")[:-1]  # not splitlines: a line separator may stand in a text
        if done.returncode != 0 or len(given) != len(asked):
            raise AssertionError(
                f"exit code {done.returncode}, {len(given)} answers to {len(asked)} questions\n{done.stderr[-4000:]}"
            )
        return [json.loads(line) for line in given]
