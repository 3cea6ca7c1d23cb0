"""What `apogeemq-controller status` and `apogeemq admin ha status` print: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from apogeemq.mesh.v1 import controller_pb2 as pb

HEADINGS = (
    "BROKER SET",
    "EPOCH",
    "SET EPOCH",
    "ID",
    "ROLE",
    "IN SET",
    "ALIVE",
    "STREAM",
    "LEASE",
    "END OFFSET",
    "LAG",
    "ADDRESS",
)

BrokerRow = dict[str, object]


def render(reply: pb.DescribeSetsReply, form: Literal["table", "json"]) -> str:
    """Write what a controller told, ending in a newline."""
    if form == "json":
        return json.dumps(_described(reply), indent=2) + "\n"
    return "\n".join(_lines(reply)) + "\n"


def _described(reply: pb.DescribeSetsReply) -> dict[str, object]:
    return {
        "cluster": reply.cluster,
        "controller": reply.controller,
        "active": reply.active,
        "etcd_trouble": reply.etcd_trouble,
        "sets": [
            {
                "broker_name": each.broker_name,
                "master_id": each.set_state.master_id,
                "master_epoch": each.set_state.master_epoch,
                "sync_state_set": list(each.set_state.members),
                "set_epoch": each.set_state.set_epoch,
                "possible_loss": each.set_state.possible_loss,
                "loss_epoch": each.set_state.loss_epoch,
                "trouble": each.trouble,
                "brokers": list(_brokers(each)),
                "elections": [_election(one) for one in each.elections],
            }
            for each in reply.sets
        ],
    }


def _brokers(broker_set: pb.DescribeSetsReply.BrokerSet) -> Iterator[BrokerRow]:
    state = broker_set.set_state
    replicas = {each.broker_id: each for each in state.replicas}
    for seen in broker_set.brokers:
        replica = replicas[seen.broker_id]
        yield {
            "broker_id": seen.broker_id,
            "role": _role(state, replica),
            "in_sync_state_set": seen.broker_id in state.members,
            "alive": seen.is_alive,
            "connected": seen.is_connected,
            "epoch": seen.epoch,
            "end_offset": seen.end_offset,
            "lag": seen.lag if seen.HasField("lag") else None,
            "lease_left_ms": seen.lease_left_ms if seen.HasField("lease_left_ms") else None,
            "address": replica.address,
            "mesh_address": replica.mesh_address,
            "incarnation": replica.incarnation,
        }


def _election(seen: pb.DescribeSetsReply.Election) -> dict[str, object]:
    return {
        "master_epoch": seen.master_epoch,
        "master_id": seen.master_id,
        "previous_id": seen.previous_id,
        "sync_state_set": list(seen.members),
        "reason": seen.reason,
        "age_ms": seen.age_ms,
    }


def _role(state: pb.SetState, replica: pb.SetState.Replica) -> str:
    if replica.broker_id == state.master_id:
        return "master"
    return "learner" if replica.is_learner else "slave"


def _lines(reply: pb.DescribeSetsReply) -> Iterator[str]:
    yield f"cluster {reply.cluster}, active controller {reply.active or 'none'}, seen by {reply.controller}"
    if reply.etcd_trouble:
        yield f"ETCD CANNOT BE USED: {reply.etcd_trouble}"
    rows = [row for each in reply.sets for row in _rows(each)]
    if rows:
        yield ""
        yield from _aligned([HEADINGS, *rows])
    for each in reply.sets:
        if each.trouble:
            yield f"{each.broker_name}: NOTHING CAN BE DECIDED: {each.trouble}"
        if not each.set_state.master_id:
            yield f"{each.broker_name}: has NO MASTER"
        if each.set_state.possible_loss:
            yield f"{each.broker_name}: its only member MAY LACK what it acknowledged"
        if each.set_state.loss_epoch:
            yield f"{each.broker_name}: what was acknowledged before epoch {each.set_state.loss_epoch} MAY BE LOST"
    if any(each.elections for each in reply.sets):
        yield ""
        yield "Last elections that this controller saw:"
        for each in reply.sets:
            for one in each.elections:
                yield _election_line(each.broker_name, one)


def _election_line(broker_name: str, seen: pb.DescribeSetsReply.Election) -> str:
    instead = f" instead of {seen.previous_id}" if seen.previous_id not in (0, seen.master_id) else ""
    return (
        f"  {broker_name}: epoch {seen.master_epoch}, broker {seen.master_id}{instead}, set {list(seen.members)}, "
        f"{_age(seen.age_ms)} ago: {seen.reason}"
    )


def _age(age_ms: int) -> str:
    """In the largest unit of which there are two, or in seconds."""
    seconds = age_ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _rows(broker_set: pb.DescribeSetsReply.BrokerSet) -> Iterator[tuple[str, ...]]:
    state = broker_set.set_state
    for broker in _brokers(broker_set):
        yield (
            broker_set.broker_name,
            str(state.master_epoch),
            str(state.set_epoch),
            str(broker["broker_id"]),
            str(broker["role"]),
            _yes(broker["in_sync_state_set"]),
            _yes(broker["alive"]),
            _yes(broker["connected"]),
            _seconds(broker["lease_left_ms"]),
            str(broker["end_offset"]),
            "-" if broker["lag"] is None else str(broker["lag"]),
            str(broker["address"]),
        )


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _seconds(milliseconds: object) -> str:
    return f"{milliseconds / 1000:.1f} s" if isinstance(milliseconds, int) else "-"


def _yes(value: object) -> str:
    return "yes" if value else "no"
