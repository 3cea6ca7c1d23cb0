"""Seven situations that users met with Apache RocketMQ's controller mode, on a set of processes under load.

```
whole ── a client sends to the master, and reads ── the steps of the situation ── whole again ── what is so in the end
```
Etcd ×3, a name server, two controllers and three brokers, anew for each situation. In the end, of each: nothing that
was acknowledged is lost, nothing that was shown is taken back or another message, queue offsets have no gap, and the
logs of all three are equal, byte by byte, up to the least end. The same as stories of the simulator:
`tests/simulation/scripts/issue_*.txt`.

`./task chaos -- --situations` runs all. Those that need a cut run on a private network alone (`network.py`).
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.chaos import kills, network, pulling
from tests.chaos.checker import Checker
from tests.chaos.history import Gone, History, Kind, Outcome, Send
from tests.chaos.master import Master
from tests.chaos.network import PrivateNetwork
from tests.chaos.set_faults import frozen
from tests.config_files import QUEUES, topic_config, write_config_files
from tests.e2e.broker_set import CONTROLLERS, SET, BrokerSetDeployment
from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient, pull_all, send_fields
from tests.etcd_cluster import machine_name, programs
from tests.machines import loopback

BROKERS = ("b1", "b2", "b3")
ETCD_MEMBERS = 3
WAIT_S = 30.0
SOME_SENDS = 30
ANSWERS_S = 0.5
"""So long answers are waited for that should not come, or not be a success."""
CUT = "the log is cut at"
"""What a replica says in its log when it drops an end that is not its master's."""


# -- what a situation works with ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """A set, one client at work, and what it saw.

    Attributes:
        network: the private one; None on loopback.
        stray: keys of messages that were sent to a master which could not have them stored.
    """

    deployment: BrokerSetDeployment
    network: PrivateNetwork | None
    history: History
    master: Master
    worker: pulling.PullingWorker
    stray: list[str] = dataclasses.field(default_factory=list)
    is_loaded: bool = False

    @property
    def private(self) -> PrivateNetwork:
        """The private network of a situation that needs one."""
        assert self.network is not None, "this situation needs a private network"
        return self.network

    def load(self) -> None:
        """Begin to send and to read; some are acknowledged afterwards."""
        self.worker.start()
        self.is_loaded = True
        self.more()

    def end(self) -> None:
        """End the client, where it has begun."""
        if self.is_loaded:
            self.worker.end()

    def more(self) -> None:
        """Until some more are acknowledged."""
        goal = self.acknowledged() + SOME_SENDS
        poll_until(lambda: self.acknowledged() >= goal, WAIT_S, lambda: AssertionError(f"{goal} sends are not stored"))

    def acknowledged(self) -> int:
        """How many sends were."""
        sends = (each for each in self.history.events() if isinstance(each, Send))
        return sum(each.outcome is Outcome.ACKNOWLEDGED for each in sends)

    @contextlib.contextmanager
    def strays(self, name: str, count: int = 3) -> Iterator[Callable[[], list[int]]]:
        """Send to a broker whoever is master, without waiting; gives what tells the codes of all answers so far."""
        sends = [Send(key=f"stray-{len(self.stray) + number}", kind=Kind.PULL) for number in range(count)]
        codes: list[int] = []
        with WireClient(self.deployment.remoting[name]) as client:
            by_opaque = {self._send(client, send): send for send in sends}
            client.socket.settimeout(ANSWERS_S)

            def answers() -> list[int]:
                with contextlib.suppress(TimeoutError):
                    while len(codes) < count:
                        reply = client.receive_any()
                        codes.append(reply.code)
                        if reply.code == ResponseCode.SUCCESS:
                            self.history.end(by_opaque[reply.opaque], Outcome.ACKNOWLEDGED)
                return codes

            yield answers

    def _send(self, client: WireClient, send: Send) -> int:
        self.history.add(send)
        self.stray.append(send.key)
        return client.send(RequestCode.SEND_MESSAGE_V2, send_fields(pulling.TOPIC), send.key.encode())

    def shown_by(self, name: str) -> set[str]:
        """What a reader is shown by this broker, whoever is master; it is in the history too."""
        shown: set[str] = set()
        with WireClient(self.deployment.remoting[name]) as client:
            for queue_id in range(QUEUES):
                offset = 0
                while found := pulling.deliveries(
                    pulling.pull(client, pulling.SECOND_GROUP, queue_id, offset), queue_id
                ):
                    for each in found:
                        shown.add(self.history.add(each).key)
                    offset = found[-1].place.queue_offset + 1
        return shown

    def another(self, before: dict[str, Any]) -> dict[str, Any]:
        """Wait until the set has another master, in a higher epoch."""
        told = self.deployment.until(
            lambda told: told["master_id"] not in {0, before["master_id"]}, "another broker is master"
        )
        assert told["master_epoch"] > before["master_epoch"], told
        return told

    def whole_again(self, before: dict[str, Any]) -> dict[str, Any]:
        """Wait until all is whole in a higher epoch: before anybody was elected, it looks as it did."""
        self.deployment.until(lambda told: told["master_epoch"] > before["master_epoch"], "a new epoch")
        return self.deployment.whole()

    def elect(self, name: str) -> dict[str, Any]:
        """An operator has a broker elected; gives the status after it."""
        before = self.deployment.status()
        target = next(each for each in before["brokers"] if each["address"] == self.deployment.remoting[name])
        number = target["broker_id"]
        controllers = self.deployment.controllers
        done = controllers.command("elect-master", "--broker-name", SET, "--broker-id", str(number))
        assert done.returncode == 0, done.stderr
        return self.deployment.until(lambda told: told["master_id"] == number, f"{name} is master")

    def log(self, name: str) -> bytes:
        """A broker's commit log, without the zeros behind its end."""
        directory = self.deployment.directory(name) / "commitlog"
        files = self.deployment.log_files(name)
        assert files[0] == "0" * 20, f"the log of {name} begins with {files[0]}"
        return b"".join((directory / each).read_bytes() for each in files).rstrip(b"\0")

    def epochs(self, name: str) -> list[str]:
        """Epochs of a broker's log with their beginnings, as its file has them: "7-7000"."""
        path = self.deployment.directory(name) / "epochFileCheckpoint"
        return path.read_text().split()[2:] if path.exists() else []


# -- the situations ----------------------------------------------------------------------------------------------------


def master_with_a_slave(scene: Scene) -> str:
    """#6662: the old master is cut off together with one slave, and the rest elects another.

    At Apache the old master confirmed what that slave alone had, and showed it to readers. Here neither acknowledges
    or shows anything that the third broker does not have.
    """
    deployment, before = scene.deployment, scene.deployment.whole()
    master, slave, third = deployment.master(), *deployment.slaves()
    room = [master, slave, deployment.active_controller()]
    with scene.private.parted(room, scene.private.others(room, clients=False)), scene.strays(master) as answers:
        _in_log(scene, master)
        _in_log(scene, slave)
        after = scene.another(before)
        assert deployment.name_from(after, after["master_id"]) == third
        assert ResponseCode.SUCCESS not in answers(), "the master of a part acknowledged"
        shown = {name: scene.shown_by(name) for name in (master, slave)}
        assert shown[master], "the old master shows nothing"
        assert not {*scene.stray} & (shown[master] | shown[slave]), "what only a part had was shown"
    deployment.whole()
    scene.more()
    return f"{third} was elected; {master} and {slave} held {len(scene.stray)} more and showed none"


def isolated_master(scene: Scene) -> str:
    """#7017: a room is cut off, with the master and a controller in it.

    At Apache the isolated master went on to accept messages, and lost them as it became a slave. Here it says to nobody
    that they are stored.
    """
    deployment, before = scene.deployment, scene.deployment.whole()
    master = deployment.master()
    room = [master, deployment.active_controller()]
    with scene.private.parted(room, scene.private.others(room, clients=False)), scene.strays(master) as answers:
        _in_log(scene, master)
        after = scene.another(before)
        scene.more()
        with scene.strays(master) as later:
            assert ResponseCode.SUCCESS not in [*answers(), *later()], "the isolated master acknowledged"
        shown = scene.shown_by(master)
        assert shown, "the isolated master shows nothing"
        assert not {*scene.stray} & shown, "the isolated master showed what nobody else has"
    deployment.whole()
    scene.more()
    assert not any(key.encode() in scene.log(name) for key in scene.stray for name in BROKERS), "a log kept them"
    return f"{deployment.name_from(after, after['master_id'])} took over; {master} acknowledged and showed nothing"


def shared_queue_offset(scene: Scene) -> str:
    """#7689: controllers and the master are killed together, and come back at once.

    At Apache the master counted on from its confirm offset with records beyond it in the log: two messages got one
    queue offset. Here it counts from the log's end.
    """
    deployment, before = scene.deployment, scene.deployment.whole()
    master = deployment.master()
    with _unheard(scene, master), scene.strays(master):
        _in_log(scene, master)
        for name in CONTROLLERS:
            deployment.controllers.process(name).kill()
        deployment.process(master).kill()
    for name in CONTROLLERS:
        deployment.controllers.start(name)
    deployment.start_broker(master)
    after = scene.whole_again(before)
    scene.more()
    return f"{deployment.name_from(after, after['master_id'])} leads epoch {after['master_epoch']}, was {master}"


def switch_keeps_topics(scene: Scene) -> str:
    """#9804: a topic is made on the master, and the set switches at once.

    At Apache slaves asked for the tables now and then, and the next master did not know the topic. Here it travels in
    front of its first message.
    """
    deployment = scene.deployment
    deployment.whole()
    for number, slave in enumerate([*deployment.slaves(), deployment.master()]):
        topic = f"Switched{number}"
        with WireClient(deployment.remoting[deployment.master()]) as client:
            reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(topic), topic.encode())
            assert reply.code == ResponseCode.SUCCESS, reply
            made = client.request(RequestCode.GET_TOPIC_CONFIG, {"topic": topic})
        scene.elect(slave)
        with WireClient(deployment.remoting[slave]) as client:
            known = client.request(RequestCode.GET_TOPIC_CONFIG, {"topic": topic})
            assert known.code == ResponseCode.SUCCESS, f"{slave} does not know {topic}: {known}"
            assert json.loads(known.body) == json.loads(made.body)
            poll_until(
                lambda client=client, topic=topic: _bodies(client, topic) == [topic.encode()],  # type: ignore[misc]
                WAIT_S,
                lambda topic=topic: AssertionError(f"the message of {topic} is not there"),  # type: ignore[misc]
            )
        deployment.whole()
    scene.more()
    return "three switches, each new master knew the topic that was made right before"


def epochs_without_records(scene: Scene) -> str:
    """#9942: nothing was ever written, replicas are away in turn, and masters change.

    At Apache epoch files disagreed afterwards, and the old master could not follow. Here an epoch without a record is
    no part of a log.
    """
    deployment = scene.deployment
    first = deployment.whole()["master_epoch"]
    for _ in range(2):
        target, away = deployment.slaves()
        deployment.process(away).kill()
        deployment.until(lambda told: len(told["sync_state_set"]) == 2, f"{away} left the set")
        scene.elect(target)
        deployment.start_broker(away)
        deployment.whole()
    before = deployment.status()
    assert all(each["end_offset"] == 0 for each in before["brokers"]), before
    master = deployment.master()
    deployment.process(master).kill()
    scene.another(before)
    scene.load()
    deployment.start_broker(master)
    last = deployment.whole()["master_epoch"]
    scene.more()
    found = [scene.epochs(name) for name in BROKERS]
    assert found == [[f"{last}-0"]] * len(BROKERS), f"epoch files have {found}, the set is in epoch {last}"
    return f"epochs {first} to {last - 1} were empty; all three have {last} alone"


def truncation_and_power(scene: Scene) -> str:
    """#10666: a broker cuts its log to what it has in common with its master, and dies.

    At Apache the cut was in memory only, and the records were read again at the next start. Here it is durable first.
    Another boot of the machine comes with it on a private network; on loopback it is a kill.
    """
    deployment, before = scene.deployment, scene.deployment.whole()
    master, slaves = deployment.master(), deployment.slaves()
    for name in slaves:
        deployment.process(name).kill()
    with scene.strays(master):
        _in_log(scene, master)
    deployment.process(master).kill()
    for name in slaves:
        deployment.start_broker(name)
    scene.another(before)
    scene.more()
    cuts = deployment.process(master).log.count(CUT)
    process = deployment.start_broker(master)
    poll_until(lambda: process.log.count(CUT) > cuts, WAIT_S, lambda: process.failure("did not cut its log"))
    process.kill()
    if scene.network is not None:
        scene.network.boot(master)
    deployment.start_broker(master)
    deployment.whole()
    scene.more()
    assert not any(key.encode() in scene.log(name) for key in scene.stray for name in BROKERS), "they came back"
    return f"{master} cut {len(scene.stray)} and more, died, and came back without them"


def any_order_of_starts(scene: Scene) -> str:
    """#6926: in 5.1.2 a broker in controller mode did not start, for its parts were made in another order.

    Here all are killed; brokers start first, then controllers, then etcd, and the name server last. Each waits.
    """
    deployment, before = scene.deployment, scene.deployment.whole()
    for name in CONTROLLERS:
        deployment.controllers.process(name).kill()
    for name in (*BROKERS, "namesrv"):
        deployment.process(name).kill()
    for index in range(ETCD_MEMBERS):
        deployment.etcd.kill(index)
    for name in reversed(BROKERS):
        deployment.start_broker(name)
    for name in reversed(CONTROLLERS):
        deployment.controllers.start(name)
    for index in range(ETCD_MEMBERS):
        deployment.etcd.start(index)
    deployment.start_namesrv()
    scene.whole_again(before)
    scene.more()
    return "brokers, controllers, etcd, name server: whole again in this order of starts"


def _unheard(scene: Scene, master: str) -> contextlib.AbstractContextManager[None]:
    """Slaves get nothing of the master: by a cut, or where there is none, because they are frozen."""
    slaves = scene.deployment.slaves()
    if scene.network is not None:
        return scene.network.silenced([master], slaves)
    return frozen(*map(scene.deployment.process, slaves))


def _in_log(scene: Scene, name: str) -> None:
    """Wait until a broker's log has the strays."""
    poll_until(
        lambda: all(key.encode() in scene.log(name) for key in scene.stray),
        WAIT_S,
        lambda: AssertionError(f"the log of {name} has not all of {scene.stray}"),
    )


def _bodies(client: WireClient, topic: str) -> list[bytes]:
    return [record.body for record in pull_all(client, topic, "looks")]


@dataclasses.dataclass(frozen=True)
class Situation:
    """One of the seven. `needs_cut`: a private network; `begins_empty`: it begins its load itself."""

    number: int
    play: Callable[[Scene], str]
    needs_cut: bool = False
    begins_empty: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        return f"#{self.number} {self.play.__name__.replace('_', ' ')}"


SITUATIONS = (
    Situation(6662, master_with_a_slave, needs_cut=True),
    Situation(6926, any_order_of_starts),
    Situation(7017, isolated_master, needs_cut=True),
    Situation(7689, shared_queue_offset),
    Situation(9804, switch_keeps_topics),
    Situation(9942, epochs_without_records, begins_empty=True),
    Situation(10666, truncation_and_power),
)


# -- a run -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
    """`outcome` is "passed", "failed" or "not run"."""

    name: str
    happened: str
    seconds: float
    outcome: str


def run(situation: Situation, directory: pathlib.Path, private: PrivateNetwork | None) -> Result:
    """Play one on a set of its own, and judge it."""
    began_s = time.monotonic()
    try:
        happened, outcome = _play(situation, directory, private), "passed"
    except Exception as error:  # noqa: BLE001 — it is the result, and the other situations are played all the same
        happened, outcome = f"{type(error).__name__}: {error} (logs: {directory})", "failed"
    return Result(situation.name, happened, time.monotonic() - began_s, outcome)


def _play(situation: Situation, directory: pathlib.Path, private: PrivateNetwork | None) -> str:
    history, machine_of = History(), private.machine if private else loopback
    for name in BROKERS:
        write_config_files(directory / name / "config", [topic_config(pulling.TOPIC)])
    with contextlib.ExitStack() as stack:
        deployment = stack.enter_context(BrokerSetDeployment(directory, etcd=ETCD_MEMBERS, machine_of=machine_of))
        deployment.whole()
        master = stack.enter_context(Master(deployment.routed))
        worker = pulling.PullingWorker(lambda: master.address, history, Random(situation.number))
        worker.bears_silence = True
        scene = Scene(deployment, private, history, master, worker)
        try:
            if not situation.begins_empty:
                scene.load()
            happened = situation.play(scene)
            worker.is_sending = False
            kills.wait_for_the_rest(history, [worker], WAIT_S)
        finally:
            scene.end()
            history.write(directory / kills.HISTORY)
        kills.fail_with([worker])
        return f"{happened}; {_judged(scene)}"


def _judged(scene: Scene) -> str:
    """What is so in the end of each situation."""
    pulling.read_again(lambda: scene.master.address, scene.history, WAIT_S)
    events = scene.history.events()
    faults = Checker(events).faults()
    assert not faults, f"{len(faults)} faults: {'; '.join(map(str, faults[:5]))}"
    assert not any(isinstance(each, Gone) for each in events)
    with WireClient(scene.master.address) as client:
        for queue_id in range(QUEUES):
            offsets = [record.queue_offset for record in pull_all(client, pulling.TOPIC, "counts", queue_id)]
            assert offsets == list(range(len(offsets))), f"queue {queue_id} has offsets {offsets}"
    logs = [scene.log(name) for name in BROKERS]
    end = min(map(len, logs))
    assert end, "a log is empty"
    assert len({log[:end] for log in logs}) == 1, f"logs differ in front of {end}"
    processes = [scene.deployment.controllers.process(name) for name in CONTROLLERS]
    processes += [scene.deployment.process(name) for name in BROKERS]
    assert not any("Traceback" in process.log for process in processes), "a process told of a defect"
    return f"{scene.acknowledged()} acknowledged, logs equal up to {end}"


def main(arguments: Sequence[str]) -> int:
    """Play those that were asked for, and print a table; 1 where one failed, 2 where nothing could be played."""
    options = _options(arguments)
    chosen = [each for each in SITUATIONS if not options.only or each.number in options.only]
    why = "--network loopback"
    if options.network != "loopback" and not network.is_entered():
        why = network.why_not()
        if not why:
            programs()  # what has to be fetched is fetched before: a private network has no way out
            argv = network.command([sys.executable, "-m", "tests.chaos.situations", *arguments])
            os.execvp(argv[0], argv)
        if options.network == "private":
            print(f"./task chaos: no private network can be made here: {why}", file=sys.stderr)
            return 2
    directory = pathlib.Path(tempfile.mkdtemp(prefix="situations-"))
    results = []
    with contextlib.ExitStack() as stack:
        private = None
        if network.is_entered():
            names = [*BROKERS, *CONTROLLERS, "namesrv", *map(machine_name, range(ETCD_MEMBERS))]
            private = stack.enter_context(PrivateNetwork(names, directory, {}))
        for each in chosen:
            if each.needs_cut and private is None:
                results.append(Result(each.name, f"it needs a private network: {why}", 0.0, "not run"))
                continue
            results.append(run(each, directory / str(each.number), private))
            print(_line(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps([dataclasses.asdict(each) for each in results]) if options.output == "json" else table(results))
    return 1 if any(each.outcome == "failed" for each in results) else 0


def table(results: Sequence[Result]) -> str:
    """A line each."""
    return "\n".join([f"{'situation':32} {'result':8} {'s':>6}  what happened", *map(_line, results)])


def _line(result: Result) -> str:
    return f"{result.name:32} {result.outcome:8} {result.seconds:6.1f}  {result.happened}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./task chaos -- --situations", description=__doc__.splitlines()[0])
    numbers = [each.number for each in SITUATIONS]
    parser.add_argument("--only", action="append", type=int, choices=numbers, help="by its number; several times")
    parser.add_argument("--network", choices=("auto", "private", "loopback"), default="auto")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
