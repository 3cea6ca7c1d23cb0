"""Waiting times by the policies that a server's settings name."""

import pytest
from apogeemq.client_grpc.core.backoff import (
    CONSUMER_RETRY,
    PRODUCER_RETRY,
    CustomizedBackoff,
    ExponentialBackoff,
    retry_policy,
)
from apogeemq.proto.v2 import definition_pb2
from google.protobuf.duration_pb2 import Duration


def test_exponential_grows_to_its_maximum() -> None:
    """Apache's producer policy: 10 ms, doubled, never above a second, however many attempts there were."""
    backoff = ExponentialBackoff(initial_s=0.01, max_s=1.0, multiplier=2.0)
    assert [backoff(attempt) for attempt in (1, 2, 3, 7)] == [0.01, 0.02, 0.04, 0.64]
    assert backoff(8) == backoff(100_000) == 1.0


def test_customized_keeps_its_last_step() -> None:
    """Each attempt has its own wait, later ones the last."""
    backoff = CustomizedBackoff((1.0, 5.0, 10.0))
    assert [backoff(attempt) for attempt in (0, 1, 2, 3, 4, 99)] == [1.0, 1.0, 5.0, 10.0, 10.0, 10.0]


def test_the_defaults_are_those_of_apaches_proxy() -> None:
    """Producers: 3 attempts from 10 ms. Consumers: 17 attempts, 18 steps from 1 s to 2 h."""
    assert (PRODUCER_RETRY.max_attempts, PRODUCER_RETRY.backoff(1)) == (3, 0.01)
    assert (CONSUMER_RETRY.max_attempts, CONSUMER_RETRY.backoff(1), CONSUMER_RETRY.backoff(18)) == (17, 1, 7200)


def test_a_policy_is_read_from_settings() -> None:
    """Both strategies, with parts of a second."""
    exponential = definition_pb2.RetryPolicy(
        max_attempts=5,
        exponential_backoff=definition_pb2.ExponentialBackoff(
            initial=Duration(nanos=500_000_000), max=Duration(seconds=3), multiplier=4
        ),
    )
    policy = retry_policy(exponential, PRODUCER_RETRY)
    assert (policy.max_attempts, policy.backoff(1), policy.backoff(2), policy.backoff(3)) == (5, 0.5, 2.0, 3.0)
    customized = definition_pb2.RetryPolicy(
        max_attempts=2, customized_backoff=definition_pb2.CustomizedBackoff(next=[Duration(seconds=7)])
    )
    assert retry_policy(customized, PRODUCER_RETRY).backoff(1) == 7.0


@pytest.mark.parametrize(
    "sent",
    [
        definition_pb2.RetryPolicy(),
        definition_pb2.RetryPolicy(max_attempts=-1, customized_backoff=definition_pb2.CustomizedBackoff()),
    ],
)
def test_what_a_server_leaves_out_is_the_default(sent: definition_pb2.RetryPolicy) -> None:
    """A policy without a strategy, or with an empty one, must not break a consumer (it breaks the Java client)."""
    policy = retry_policy(sent, CONSUMER_RETRY)
    assert (policy.max_attempts, policy.backoff) == (17, CONSUMER_RETRY.backoff)
