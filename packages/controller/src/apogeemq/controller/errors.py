"""What can go wrong between the controller and etcd.

EtcdError
├── EtcdUnavailable      no member answered in time; nothing was changed
├── EtcdOutcomeUnknown   a change was sent and its answer never came: read and compare before anything else
├── EtcdRefused          etcd answered "no": nothing was changed
│   ├── EtcdDenied       wrong user or password, or the user may not do this
│   ├── LeaseGone        there is no such lease (any more): its keys are gone too
│   └── Compacted        that revision is no longer kept: read everything anew
└── EtcdClosed           ours: the client was closed by this process
"""

# ruff: noqa: N818 — these are facts ("the lease is gone") and read better in `except` without a suffix

from __future__ import annotations

from collections.abc import Sequence


class EtcdError(Exception):
    """Root of everything that a call of etcd can raise."""


class EtcdUnavailable(EtcdError):
    """No member of `endpoints` answered within the time that the call had."""

    def __init__(self, endpoints: Sequence[str], timeout_s: float, last: str) -> None:
        super().__init__(
            f"no etcd member of {', '.join(endpoints)} answered within {timeout_s:g} s; the last one tried: {last}. "
            f"Nothing was changed. {_what_to_check(last)}"
        )


class EtcdOutcomeUnknown(EtcdError):
    """A change was sent to `endpoint` and no answer came: it may have been made, or may still be."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint} did not tell whether it made the change ({reason}); read it back and compare")


class EtcdRefused(EtcdError):
    """etcd refused: `code` is gRPC's name of the status, the rest etcd's own words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"etcd refused with {code}: {message}{_advice(message)}")
        self.code = code


class EtcdDenied(EtcdRefused):
    """The user or password is wrong, or the user may not do this."""


class LeaseGone(EtcdRefused):
    """There is no lease of this id: it ended, and took its keys with it."""

    def __init__(self, lease_id: int) -> None:
        super().__init__("NOT_FOUND", f"lease {lease_id:x} has ended")
        self.lease_id = lease_id


class Compacted(EtcdRefused):
    """What happened since a revision was asked for, and `revision` and all before it are no longer kept."""

    def __init__(self, revision: int) -> None:
        super().__init__("OUT_OF_RANGE", f"changes up to revision {revision} are compacted away")
        self.revision = revision


class EtcdClosed(EtcdError):
    """This process has closed its client."""

    def __init__(self) -> None:
        super().__init__("the etcd client is closed")


def _what_to_check(failure: str) -> str:
    if "handshake failed" in failure:
        return "Check etcd.tls, etcd.ca_path, and the certificate of etcd.cert_path where the members ask for one."
    return "Check that a majority of the members runs and can be reached."


def _advice(message: str) -> str:
    if "space exceeded" in message:
        return ". Its database is full and takes no changes: compact and defragment it, then disarm its NOSPACE alarm."
    return ""
