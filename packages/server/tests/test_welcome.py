"""What `apogeemq up` prints for people."""

from pathlib import Path

from apogeemq.server.welcome import ShownProcess, welcome, welcome_to

EVERYTHING = {
    "namesrv.http": "127.0.0.1:9878",
    "namesrv.mesh": "127.0.0.1:9877",
    "namesrv.remoting": "127.0.0.1:9876",
    "broker.http": "127.0.0.1:10931",
    "broker.remoting": "127.0.0.1:10911",
    "broker.mesh": "127.0.0.1:10921",
    "broker.vip": "127.0.0.1:10909",
}
DATA = Path("/srv/mq/broker")


def table(text: str) -> list[str]:
    """The lines between the first and the second blank one."""
    return text.split("\n\n")[1].splitlines()


def test_every_listener_has_a_row_in_a_fixed_order() -> None:
    """By service, the one for clients first, whatever order they were started in; then the data directory."""
    rows = [line.split() for line in table(welcome(EVERYTHING, DATA, "0.1.0"))]
    assert [row[:4] for row in rows[:1]] == [["name", "server", "remoting", "127.0.0.1:9876"]]
    assert [row[:2] for row in rows[1:3]] == [["mesh", "127.0.0.1:9877"], ["http", "127.0.0.1:9878"]]
    assert rows[3][:3] == ["broker", "remoting", "127.0.0.1:10911"]
    assert [row[0] for row in rows[4:7]] == ["vip", "mesh", "http"]
    assert rows[7] == ["data", "/srv/mq/broker"]
    assert len(rows) == 8


def test_the_columns_are_aligned() -> None:
    """Addresses begin in one column and notes in one, also beside longer addresses; no line ends in blanks."""
    listeners = {**EVERYTHING, "broker.mesh": "a-rather-long-name.example.com:10921"}
    lines = table(welcome(listeners, DATA, "0.1.0"))
    addresses = [*listeners.values(), str(DATA)]
    assert len({line.index(address) for line in lines for address in addresses if f" {address}" in line}) == 1
    notes = ("clients", "other services", "/healthz")
    assert len({line.index(note) for line in lines for note in notes if f" {note}" in line}) == 1
    assert all(line == line.rstrip() for line in lines)


def test_what_to_try_names_the_name_server_that_listens() -> None:
    """The command for the example carries the real address, so that it can be pasted whatever the ports are."""
    text = welcome({**EVERYTHING, "namesrv.remoting": "127.0.0.1:41234"}, DATA, "0.1.0")
    command = "mvn -q -f examples/java-quickstart compile exec:java -Dexec.args=127.0.0.1:41234"
    assert f"  {command}" in text.splitlines()
    example = Path(__file__).parents[3] / "examples" / "java-quickstart" / "pom.xml"
    assert example.is_file()


def test_what_to_try_names_the_proxy_that_listens() -> None:
    """The same for gRPC: our own first program, and what other clients are to be given."""
    text = welcome({**EVERYTHING, "proxy.grpc": "127.0.0.1:41235"}, DATA, "0.1.0")
    command = ".venv/bin/python examples/client-grpc-quickstart/quickstart.py 127.0.0.1:41235"
    assert f"  {command}" in text.splitlines()
    assert (Path(__file__).parents[3] / "examples" / "client-grpc-quickstart" / "quickstart.py").is_file()


def test_listeners_that_are_off_have_no_row() -> None:
    """Without the name server's Remoting listener there is nothing to try, and the rest is told all the same."""
    text = welcome({"broker.remoting": "127.0.0.1:10911"}, DATA, "0.1.0")
    assert [line.split() for line in table(text)] == [
        ["broker", "remoting", "127.0.0.1:10911", "clients"],
        ["data", "/srv/mq/broker"],
    ]
    assert "Try it" not in text
    assert text.endswith("\nCtrl-C stops.\n")


def test_the_version_is_told() -> None:
    """The first line names product and version: what a report of a problem has to begin with."""
    assert welcome(EVERYTHING, DATA, "1.2.3").splitlines()[0] == "ApogeeMQ 1.2.3 serves."


def test_processes_are_named_with_their_pids() -> None:
    """Each with its own listeners; what to try names the first proxy and name server, and all controllers."""
    processes = [
        ShownProcess("etcd-1", "etcd", 10, {"client": "127.0.0.1:2379", "peer": "127.0.0.1:2380"}),
        ShownProcess("namesrv-1", "namesrv", 11, {"remoting": "127.0.0.1:9876"}),
        ShownProcess("controller-1", "controller", 12, {"mesh": "127.0.0.1:9870"}),
        ShownProcess("controller-2", "controller", 13, {"mesh": "127.0.0.1:9970"}),
        ShownProcess("proxy-1", "proxy", 14, {"grpc": "127.0.0.1:8081"}),
        ShownProcess("proxy-2", "proxy", 15, {"grpc": "127.0.0.1:8181"}),
    ]
    text = welcome_to(processes, DATA, "0.1.0", ["look out"])
    assert [line.split("  ")[1] for line in table(text)][:4] == [
        "etcd-1 (process 10)",
        "",
        "namesrv-1 (process 11)",
        "controller-1 (process 12)",
    ]
    assert "NOTE: look out" in text.splitlines()
    assert "quickstart.py 127.0.0.1:8081\n" in text
    assert 'apogeemq admin ha status --controller "127.0.0.1:9870;127.0.0.1:9970"' in text
