"""Official clients that send to a broker set and receive from it while the set's master is killed."""

from __future__ import annotations

import pathlib

import pytest

from tests.e2e.broker_set import BrokerSetDeployment
from tests.trials.stock_failover import Stage, quick_ones


@pytest.mark.verify
def test_official_clients_go_on_with_the_next_master(java_command: str, tmp_path: pathlib.Path) -> None:
    """Nobody starts anew: producers send on, consumers get what was acknowledged, and all of that is in the topics."""
    with BrokerSetDeployment(tmp_path, etcd=1) as deployment:
        deployment.whole()
        stage = Stage(deployment, deployment.start_proxy(), tmp_path / "clients", java_command)
        producers, consumers = quick_ones(stage, rounds=1, each=1)
    for seen in producers:
        print(f"sends: {seen.figures()}")
    for seen in consumers:
        print(f"deliveries: {seen.figures()}")
    assert [len(seen.pauses_s) for seen in producers] == [1, 1, 1, 1]
    assert [len(seen.pauses_s) for seen in consumers] == [1, 1]
