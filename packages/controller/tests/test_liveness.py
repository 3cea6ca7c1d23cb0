"""Who is alive: leases, streams and their grace (architecture §6.2)."""

from apogeemq.controller.core import liveness
from apogeemq.controller.core.liveness import Came, Gone, Liveness, RegisterAgain, Tick

TTL_MS = 3_000


def active(*broker_ids: int) -> Liveness:
    machine = Liveness()
    machine.step(liveness.BecameActive(TTL_MS, broker_ids), 0)
    return machine


def arrive(machine: Liveness, broker_id: int, now_ms: int) -> tuple[liveness.Effect, ...]:
    return (
        *machine.step(liveness.LeaseSeen(broker_id), now_ms),
        *machine.step(liveness.StreamOpened(broker_id), now_ms),
    )


def test_a_broker_is_alive_with_a_lease_and_a_stream() -> None:
    """Not with one of them."""
    assert arrive(active(), 1, 10) == (Came(1),)


def test_a_new_active_controller_gives_everybody_a_full_ttl() -> None:
    """Broker 2 never comes."""
    machine = active(1, 2)
    arrive(machine, 1, 500)
    assert machine.step(Tick(), TTL_MS - 1) == ()
    assert machine.step(Tick(), TTL_MS) == (Gone(2),)
    assert machine.alive == {1}


def test_a_broken_stream_has_half_a_second() -> None:
    """Come back within it, and nothing happened."""
    machine = active()
    arrive(machine, 1, 0)
    machine.step(liveness.StreamBroken(1), 5_000)
    assert machine.step(Tick(), 5_499) == ()
    assert machine.step(liveness.StreamOpened(1), 5_499) == ()
    machine.step(liveness.StreamBroken(1), 6_000)
    assert machine.step(Tick(), 6_500) == (Gone(1),)


def test_an_expired_lease_is_the_end_at_once_and_the_broker_is_asked_to_register() -> None:
    """Its stream may be open still: again each second."""
    machine = active()
    arrive(machine, 1, 0)
    assert machine.step(liveness.LeaseEnded(1), 5_000) == (Gone(1),)
    assert machine.step(Tick(), 5_999) == ()
    assert machine.step(Tick(), 6_000) == (RegisterAgain(1),)
    assert machine.step(Tick(), 6_500) == ()
    assert machine.step(Tick(), 7_000) == (RegisterAgain(1),)
    assert machine.step(liveness.LeaseSeen(1), 7_100) == (Came(1),)


def test_a_set_is_quiet_while_all_who_live_have_stream_and_lease() -> None:
    """Then time alone changes nothing, however much of it passes; a lease or a stream that goes ends that."""
    machine = Liveness()
    assert machine.is_quiet
    machine.step(liveness.LeaseSeen(1), 0)
    assert not machine.is_quiet, "its stream may come"
    machine.step(liveness.StreamOpened(1), 10)
    assert machine.is_quiet
    assert machine.step(Tick(), 10**9) == ()
    machine.step(liveness.StreamBroken(1), 10**9)
    assert not machine.is_quiet
    machine.step(liveness.StreamOpened(1), 10**9 + 1)
    machine.step(liveness.LeaseEnded(1), 10**9 + 2)
    assert not machine.is_quiet, "it has to register again"
