"""brokerRole without controllers: a SYNC_MASTER and slaves as processes, each killed in its turn."""

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.record import decode_records

from tests.e2e.process import ManagedProcess, fixed_ports, poll_until, start_service
from tests.e2e.wire_client import WireClient, pull_fields, route_of, send_fields

TOPIC = "TopicStatic"
WAIT_S = 30.0


class Set:
    """A name server, broker m with id 0, and slaves s1 and s2; ports and directories outlive a kill."""

    def __init__(self, directory: pathlib.Path, flush_interval_ms: int = 50) -> None:
        self._flush_interval_ms = flush_interval_ms
        self.directory = directory
        self.processes: dict[str, ManagedProcess] = {}
        self._ports: dict[str, dict[str, str]] = {}
        self.remoting: dict[str, str] = {}
        self.namesrv = self._start("namesrv", "namesrv", {})

    def start(self, name: str) -> None:
        role = {"identity.broker_role": "SYNC_MASTER"}
        if name != "m":
            role = {"identity.broker_role": "SLAVE", "identity.broker_id": name.removeprefix("s")}
        settings = {
            "identity.broker_name": "broker-a",
            "identity.namesrv_addr": self.namesrv["mesh"],
            "store.path": str(self.directory / name),
            "store.commit_log_file_size_bytes": str(1 << 20),
            "store.flush_interval_ms": str(self._flush_interval_ms),
            **role,
        }
        self.remoting[name] = self._start("broker", name, settings)["remoting"]

    def _start(self, service: str, name: str, settings: dict[str, str]) -> dict[str, str]:
        config = self.directory / f"{name}.toml"
        config.write_text("")
        free = {f"listeners.{listener}.port": "0" for listener in ("remoting", "mesh", "http")}
        hosts = {f"listeners.{listener}.host": "127.0.0.1" for listener in ("remoting", "mesh")}
        process = start_service(
            service,
            config=config,
            settings={**free, **hosts, "log.level": "INFO", **settings, **self._ports.get(name, {})},
            log_directory=self.directory / "logs",
            name=name,
        )
        self.processes[name] = process
        ready = process.wait_ready()
        self._ports[name] = fixed_ports(ready)
        return dict(ready.listeners)

    def log(self, name: str) -> bytes:
        files = sorted((self.directory / name / "commitlog").iterdir())
        return b"".join(each.read_bytes() for each in files).rstrip(b"\0")

    def send(self, body: bytes) -> int:
        with WireClient(self.remoting["m"]) as client:
            return client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), body).code

    def bodies(self, name: str) -> list[bytes]:
        with WireClient(self.remoting[name]) as client:
            bodies: list[bytes] = []
            offset = 0
            while True:
                reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, "G", 0, offset))
                if reply.code != ResponseCode.SUCCESS:  # a slave says PULL_RETRY_IMMEDIATELY at its end
                    return bodies
                offset = int((reply.ext_fields or {})["nextBeginOffset"])
                bodies += [record.body for record in decode_records(reply.body)]

    def ids(self) -> set[int]:
        route = route_of(self.namesrv["remoting"], TOPIC)
        return set() if route is None else set(route.broker_datas[0].broker_addrs)

    def until(self, is_so: object, what: str) -> None:
        assert callable(is_so)

        def failure() -> Exception:
            logs = "\n".join(str(each.failure("")) for each in self.processes.values())
            return AssertionError(f"not within {WAIT_S:g} s: {what}\n{logs}")

        poll_until(is_so, WAIT_S, failure)


@contextmanager
def a_set(directory: pathlib.Path, flush_interval_ms: int = 50) -> Iterator[Set]:
    made = Set(directory, flush_interval_ms)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()


@pytest.mark.verify
def test_a_sync_master_and_its_slaves_through_kills(tmp_path: pathlib.Path) -> None:
    """A send says whether a slave has it; slaves are read while the master is dead, and follow it again."""
    with a_set(tmp_path) as brokers:
        brokers.start("m")
        not_yet = ResponseCode.SERVICE_NOT_AVAILABLE
        brokers.until(lambda: brokers.send(b"alone") != not_yet, "the master serves")
        assert brokers.send(b"alone") == ResponseCode.SLAVE_NOT_AVAILABLE
        for name in ("s1", "s2"):
            brokers.start(name)
        sent = [b"alone", b"alone"]

        def is_copied() -> bool:
            body = b"try %d" % len(sent)
            code = brokers.send(body)
            if code != not_yet:
                sent.append(body)
            return code == ResponseCode.SUCCESS

        brokers.until(is_copied, "a slave copies")
        brokers.until(lambda: brokers.ids() == {0, 1, 2}, "all are in the route")
        brokers.processes["s1"].kill()
        sent.append(b"one slave left")
        assert brokers.send(sent[-1]) == ResponseCode.SUCCESS
        brokers.processes["s2"].kill()

        def is_refused() -> bool:
            sent.append(b"none %d" % len(sent))
            return brokers.send(sent[-1]) == ResponseCode.SLAVE_NOT_AVAILABLE

        brokers.until(is_refused, "no slave is left")
        for name in ("s1", "s2"):
            brokers.start(name)
            brokers.until(lambda name=name: brokers.bodies(name) == sent, f"{name} has all")
        brokers.processes["m"].kill()
        brokers.until(lambda: brokers.ids() == {1, 2}, "the master is out of the route")
        for name in ("s1", "s2"):
            assert brokers.bodies(name) == sent
        brokers.start("m")
        brokers.until(is_copied, "a slave follows again")
        for name in ("s1", "s2"):
            brokers.until(lambda name=name: brokers.bodies(name) == sent, f"{name} has all again")
        brokers.until(lambda: brokers.log("s1") == brokers.log("m") == brokers.log("s2"), "logs are the same")


def test_a_slave_cuts_what_its_master_lost(tmp_path: pathlib.Path) -> None:
    """The master's machine lost power: what had not been synced there goes at the slave too, and nobody had read it."""
    with a_set(tmp_path, flush_interval_ms=3_600_000) as brokers:
        brokers.start("m")
        brokers.start("s1")

        def is_copied() -> bool:
            return brokers.send(b"kept") == ResponseCode.SUCCESS

        brokers.until(is_copied, "the slave copies")
        end = len(brokers.log("m"))
        for number in range(3):
            assert brokers.send(b"lost %d" % number) == ResponseCode.SUCCESS
        assert b"lost 2" in brokers.log("s1")
        assert not [body for body in brokers.bodies("s1") if body.startswith(b"lost")]
        brokers.processes["m"].kill()
        log = min((tmp_path / "m" / "commitlog").iterdir())
        with log.open("r+b") as file:
            size_bytes = log.stat().st_size
            file.seek(end)
            file.write(bytes(size_bytes - end))
        brokers.start("m")
        brokers.until(is_copied, "the slave follows again")
        brokers.until(lambda: brokers.log("s1") == brokers.log("m"), "logs are the same")
        assert b"lost" not in brokers.log("s1")
        assert "the log is cut at" in brokers.processes["s1"].log
