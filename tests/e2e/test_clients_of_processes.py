"""Both clients' ten thousand messages again, with name server, broker and proxy in processes of their own."""

from collections.abc import Iterator

import pytest

from tests.e2e.process import Ready, start_all_in_one
from tests.e2e.test_client_grpc import proxy
from tests.e2e.test_client_grpc import test_iteration_and_messages_from_remoting as test_messages_cross
from tests.e2e.test_client_grpc import (
    test_two_push_consumers_share_ten_thousand_messages as test_grpc_push_consumers,
)
from tests.e2e.test_client_grpc import (
    test_two_simple_consumers_share_ten_thousand_messages as test_grpc_simple_consumers,
)
from tests.e2e.test_client_remoting import namesrv
from tests.e2e.test_client_remoting import (
    test_two_consumers_share_ten_thousand_messages as test_remoting_consumers,
)

__all__ = [
    "namesrv",
    "proxy",
    "test_grpc_push_consumers",
    "test_grpc_simple_consumers",
    "test_messages_cross",
    "test_remoting_consumers",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """Where they listen; in the place of this folder's all-in-one."""
    directory = tmp_path_factory.mktemp("apart")
    with start_all_in_one(
        directory / "data", log_directory=directory / "logs", settings={}, arguments=["--processes"]
    ) as process:
        yield process.wait_ready()
        process.stop()
