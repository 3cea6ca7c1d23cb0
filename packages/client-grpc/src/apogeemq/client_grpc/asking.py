"""A question that is put again until it is answered, or its time is up: for what does no harm when it is done twice."""

from collections.abc import Callable
from typing import TypeVar

from apogeemq.client_api.errors import ClientClosed, ClientError, NotSupported, SendTimeout
from apogeemq.client_api.handling import Retry
from apogeemq.client_grpc.client import Client
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.status import is_fine, is_worth_another_attempt
from apogeemq.client_grpc.link import NoAnswer
from apogeemq.client_grpc.methods import Method, Request
from apogeemq.proto.v2 import definition_pb2, service_pb2

Answer = TypeVar("Answer", service_pb2.EndTransactionResponse, service_pb2.RecallMessageResponse)


async def ask_until_answered(
    client: Client,
    method: Method[Request, Answer],
    endpoints: Endpoints,
    request: Request,
    *,
    what: str,
    refused: Callable[[definition_pb2.Status], ClientError],
    retry: Retry,
    timeout_s: float,
    traceparent: str | None = None,
) -> Answer:
    """The answer of the proxy at `endpoints`, which is waited for where it can't be reached.

    Args:
        what: what is tried, such as "ending the transaction of message M", for errors.
        refused: makes the error for a status that refuses.
        retry: how often a refusal that may pass, or a lost connection, is followed by another attempt.
        timeout_s: for everything.

    Raises what `refused` gives, SendTimeout, ConnectionBroken, NotSupported, ClientClosed.
    """
    clock = client.clock
    began_s = clock.monotonic()
    attempts = 0
    while True:
        attempts += 1
        try:
            answer = await client.link.unary(
                method,
                endpoints,
                request,
                timeout_s=max(began_s + timeout_s - clock.monotonic(), 0.001),
                traceparent=traceparent,
                wait_for_connection=True,
            )
        except (ClientClosed, NotSupported):
            raise
        except NoAnswer as late:
            raise SendTimeout(
                f"{what} was not done within {timeout_s:g} s",
                broker=str(endpoints),
                attempts=attempts,
                elapsed_s=clock.monotonic() - began_s,
                hint="It may have been done all the same, and may be tried again.",
            ) from late
        except ClientError as broken:
            error = broken
        else:
            if is_fine(answer.status):
                return answer
            error = refused(answer.status)
        error.attempts, error.elapsed_s = attempts, clock.monotonic() - began_s
        pause_s = retry.backoff(attempts)
        may_pass = error.code is None or is_worth_another_attempt(error.code)
        if not may_pass or attempts >= retry.max_attempts or error.elapsed_s + pause_s >= timeout_s:
            raise error
        await clock.sleep(pause_s)
