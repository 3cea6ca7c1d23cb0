"""What a failed call of etcd means: whether it changed anything, and what to do about it.

    REFUSED      etcd decided against it: asking again, or another member, changes nothing
    LOGIN        the token is missing, old or unknown (etcd has begun anew): get another
    NOT_DONE     this member could not take it up, and did not: another may
    UNKNOWN      it may have been done

Codes and texts: etcd's api/v3rpc/rpctypes (facts); a text that is not known there counts as UNKNOWN.
"""

from __future__ import annotations

import enum

import grpc
import grpc.aio
from apogeemq.controller.errors import Compacted, EtcdDenied, EtcdRefused, LeaseGone


class Meaning(enum.Enum):
    """See the head of this module."""

    REFUSED = enum.auto()
    LOGIN = enum.auto()
    NOT_DONE = enum.auto()
    UNKNOWN = enum.auto()


_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_LOGIN_TEXTS = ("user name is empty", "invalid auth token", "revision of auth store is old")
_NOT_DONE_TEXTS = ("no leader", "not capable", "not supported for learner", "too many requests")
_LEASE_GONE = "requested lease not found"


def meaning_of(error: grpc.aio.AioRpcError) -> Meaning:
    """What to do after this failure."""
    text = error.details() or ""
    if error.code() is grpc.StatusCode.UNAUTHENTICATED or any(each in text for each in _LOGIN_TEXTS):
        return Meaning.LOGIN
    if any(each in text for each in _NOT_DONE_TEXTS):
        return Meaning.NOT_DONE
    return Meaning.REFUSED if error.code() in _REFUSALS else Meaning.UNKNOWN


def refusal_of(error: grpc.aio.AioRpcError, lease_id: int = 0) -> EtcdRefused:
    """The error that a refusal is told as; `lease_id` is the lease that the call was about."""
    text = error.details() or ""
    if _LEASE_GONE in text:
        return LeaseGone(lease_id)
    denied = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    if error.code() in denied or any(each in text for each in ("authentication failed", *_LOGIN_TEXTS)):
        return EtcdDenied(error.code().name, text)
    return EtcdRefused(error.code().name, text)


def compaction_of(reason: str, revision: int) -> Compacted | None:
    """Of a cancelled watch: whether what it asked for is compacted away."""
    return Compacted(revision) if revision or "compacted" in reason else None
