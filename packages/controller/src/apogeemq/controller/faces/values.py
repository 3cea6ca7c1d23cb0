"""Messages of the controller's API ↔ the values of the core, with the checks that a message from outside needs.

What is out of range raises InvalidRequest; whether what is asked may be done, the core judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apogeemq.controller.config import NAME
from apogeemq.controller.core.broker_set import Replica, SyncState
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.elections import Election
from apogeemq.controller.core.requests import (
    Accepted,
    AskElection,
    ChangeSet,
    Leave,
    Member,
    Refused,
    Register,
    Request,
    SetLearner,
)
from apogeemq.controller.core.set_rules import REPLICAS_MAX
from apogeemq.controller.service.set_runner import Answered
from apogeemq.mesh.v1 import controller_pb2 as pb

TEXT_SIZE_BYTES_MAX = 255
EPOCH_MAX = 2**31 - 2
"""Java's epochs are 32 bit: the next one has to fit too."""
ID_MAX = 10**10 - 1
"""Ids are ten digits in the keys."""
NUMBER_MAX = 2**63 - 1


class InvalidRequest(ValueError):  # noqa: N818 — a fact about what came, as in errors.py
    """A field is missing, malformed or out of range; the text says which, and what would be right."""


def hello_of(message: pb.JoinRequest.Hello, cluster: str) -> tuple[str, Replica]:
    """Read whose stream this is: the broker set, and a Replica of which check code and incarnation are known."""
    if message.cluster != cluster:
        raise InvalidRequest(f"this is a controller of cluster {cluster!r}, not of {message.cluster!r}")
    if not NAME.fullmatch(message.broker_name):
        raise InvalidRequest(f"broker_name {message.broker_name!r} must be 1 to 255 of A-Z a-z 0-9 . _ % | -")
    code = _text("check_code", message.check_code)
    incarnation = _number("incarnation", message.incarnation, 1, NUMBER_MAX)
    return message.broker_name, Replica(0, code, "", incarnation, "")


def register_of(message: pb.JoinRequest.Register, who: Replica) -> Register:
    """Read a registration of `who`."""
    return Register(
        request_id=message.request_id,
        broker_id=_number("broker_id", message.broker_id, 0, ID_MAX),
        check_code=who.check_code,
        address=_text("address", message.address),
        incarnation=who.incarnation,
        boot_id=_text("boot_id", message.boot_id),
        clean_stop=message.clean_stop,
        lost_unsynced=message.lost_unsynced,
        last_epoch=_number("last_epoch", message.last_epoch, 0, EPOCH_MAX),
        end_offset=_number("end_offset", message.end_offset, 0, NUMBER_MAX),
        priority=_number("priority", message.priority, 0, 2**31 - 1),
        is_learner=message.is_learner,
        mesh_address=_text("mesh_address", message.mesh_address),
        known_members=_ids("known_members", message.known_members),
        known_master_epoch=_number("known_master_epoch", message.known_master_epoch, 0, EPOCH_MAX),
        known_set_epoch=_number("known_set_epoch", message.known_set_epoch, 0, NUMBER_MAX),
    )


def beat_of(message: pb.JoinRequest.Beat) -> tuple[int, int, int, int]:
    """Read a beat: broker id, lease, epoch, end of the log."""
    return (
        _number("broker_id", message.broker_id, 1, ID_MAX),
        _number("lease_id", message.lease_id, 1, NUMBER_MAX),
        _number("epoch", message.epoch, 0, EPOCH_MAX),
        _number("end_offset", message.end_offset, 0, NUMBER_MAX),
    )


def request_of(message: pb.JoinRequest, broker_id: int, incarnation: int) -> Request:
    """Read what a registered broker asks."""
    match message.WhichOneof("kind"):
        case "ask_election":
            ask = message.ask_election
            return AskElection(ask.request_id, broker_id, _number("over_epoch", ask.over_epoch, 0, EPOCH_MAX))
        case "change_set":
            return _change_set(message.change_set, broker_id)
        case "set_learner":
            return SetLearner(message.set_learner.request_id, broker_id, message.set_learner.is_learner)
        case "leave":
            return Leave(message.leave.request_id, broker_id, incarnation)
        case _:
            raise InvalidRequest("kind is not set, is newer than this controller, or is a second hello")


def broker_name_of(name: str) -> str:
    """Read the broker set that an operator means."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(f"broker_name {name!r} must be 1 to 255 of A-Z a-z 0-9 . _ % | -")
    return name


def broker_id_of(broker_id: int) -> int:
    """Read the broker that an operator means; 0 where it leaves that open."""
    return _number("broker_id", broker_id, 0, ID_MAX)


def one_broker_id_of(broker_id: int) -> int:
    """Read the broker that an operator has to name."""
    return _number("broker_id", broker_id, 1, ID_MAX)


def answer_message(request_id: int, answered: Answered, active: str) -> pb.JoinReply:
    """Make the answer to a broker's request; `active` is the controller that a refusal by a stand-by names."""
    answer, lease = answered.answer, answered.lease
    if isinstance(answer, Refused):
        refused = refused_message(answer, active)
        return pb.JoinReply(answer=pb.JoinReply.Answer(request_id=request_id, refused=refused))
    return pb.JoinReply(
        answer=pb.JoinReply.Answer(
            request_id=request_id,
            broker_id=answer.broker_id,
            lease_id=lease.lease_id if lease is not None else 0,
            lease_ttl_ms=lease.ttl_s * 1000 if lease is not None else 0,
            set_state=state_message(answer.state, answered.replicas),
            is_learner=any(each.is_learner for each in answered.replicas if each.broker_id == answer.broker_id),
        )
    )


def operator_message(answered: Answered, active: str) -> pb.OperatorReply:
    """Make the answer to an operator."""
    match answered.answer:
        case Refused() as refused:
            return pb.OperatorReply(refused=refused_message(refused, active))
        case Accepted(_, state):
            return pb.OperatorReply(set_state=state_message(state, answered.replicas))


def refused_message(refused: Refused, active: str = "") -> pb.Refused:
    """Make a refusal."""
    is_elsewhere = refused.code is Refusal.NOT_LEADER
    return pb.Refused(code=refused.code, text=refused.text, active=active if is_elsewhere else "")


def state_message(state: SyncState, replicas: Iterable[Replica]) -> pb.SetState:
    """Make a set's state."""
    return pb.SetState(
        master_id=state.master_id,
        master_epoch=state.master_epoch,
        members=state.members,
        set_epoch=state.set_epoch,
        replicas=[
            pb.SetState.Replica(
                broker_id=each.broker_id,
                address=each.address,
                mesh_address=each.mesh_address,
                incarnation=each.incarnation,
                is_learner=each.is_learner,
            )
            for each in replicas
        ],
        possible_loss=state.possible_loss,
        loss_epoch=state.loss_epoch,
    )


def election_message(election: Election, age_ms: int) -> pb.DescribeSetsReply.Election:
    """Make one that this controller saw so long ago."""
    return pb.DescribeSetsReply.Election(
        master_epoch=election.master_epoch,
        master_id=election.master_id,
        previous_id=election.previous_id,
        members=election.members,
        reason=election.reason,
        age_ms=age_ms,
    )


def _change_set(message: pb.JoinRequest.ChangeSet, master_id: int) -> ChangeSet:
    members = tuple(
        Member(_number("members.broker_id", each.broker_id, 1, ID_MAX), each.incarnation) for each in message.members
    )
    if len({each.broker_id for each in members}) != len(members) or len(members) > REPLICAS_MAX:
        raise InvalidRequest(f"members must be at most {REPLICAS_MAX} brokers, each named once")
    epoch = _number("master_epoch", message.master_epoch, 0, EPOCH_MAX)
    return ChangeSet(message.request_id, master_id, epoch, message.set_epoch, members)


def _text(field: str, value: str) -> str:
    if not value or len(value.encode()) > TEXT_SIZE_BYTES_MAX:
        raise InvalidRequest(f"{field} must have 1 to {TEXT_SIZE_BYTES_MAX} bytes")
    return value


def _ids(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if len(values) > REPLICAS_MAX:
        raise InvalidRequest(f"{name} names {len(values)} brokers; a set has at most {REPLICAS_MAX}")
    return tuple(sorted({_number(name, each, 1, ID_MAX) for each in values}))


def _number(field: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise InvalidRequest(f"{field} is {value}; it must be {least} to {most}")
    return value
