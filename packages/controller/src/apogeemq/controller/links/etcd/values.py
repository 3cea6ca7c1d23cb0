"""etcd's messages ↔ the values of core/etcd.py."""

from __future__ import annotations

from apogeemq.controller.core.etcd import (
    Change,
    Compare,
    Delete,
    Field,
    Operation,
    Outcome,
    Put,
    Relation,
    StoredKey,
    Transaction,
)
from apogeemq.controller.etcd_api import v3_pb2 as pb

_TARGETS = {
    Field.VERSION: pb.Compare.VERSION,
    Field.CREATE_REVISION: pb.Compare.CREATE,
    Field.MOD_REVISION: pb.Compare.MOD,
    Field.VALUE: pb.Compare.VALUE,
    Field.LEASE_ID: pb.Compare.LEASE,
}
_RESULTS = {
    Relation.EQUAL: pb.Compare.EQUAL,
    Relation.GREATER: pb.Compare.GREATER,
    Relation.LESS: pb.Compare.LESS,
    Relation.NOT_EQUAL: pb.Compare.NOT_EQUAL,
}


def txn_request(transaction: Transaction) -> pb.TxnRequest:
    """A transaction as etcd takes it."""
    return pb.TxnRequest(
        compare=[_compare(condition) for condition in transaction.conditions],
        success=[_operation(operation) for operation in transaction.then],
        failure=[_operation(operation) for operation in transaction.otherwise],
    )


def outcome(answer: pb.TxnResponse) -> Outcome:
    """What a transaction did."""
    found = tuple(
        tuple(stored_key(each) for each in part.response_range.kvs)
        if part.WhichOneof("response") == "response_range"
        else ()
        for part in answer.responses
    )
    return Outcome(answer.succeeded, answer.header.revision, found)


def stored_key(message: pb.KeyValue) -> StoredKey:
    """A key that was read."""
    return StoredKey(
        message.key, message.value, message.create_revision, message.mod_revision, message.version, message.lease
    )


def change(event: pb.Event) -> Change:
    """A change that a watch told."""
    key = event.kv
    value = None if event.type == pb.Event.DELETE else key.value
    return Change(key.key, value, key.create_revision, key.mod_revision, key.lease)


def _compare(condition: Compare) -> pb.Compare:
    message = pb.Compare(key=condition.key, target=_TARGETS[condition.field], result=_RESULTS[condition.relation])
    field = "lease" if condition.field is Field.LEASE_ID else condition.field.value
    setattr(message, field, condition.expected)
    return message


def _operation(operation: Operation) -> pb.RequestOp:
    if isinstance(operation, Put):
        put = pb.PutRequest(key=operation.key, value=operation.value, lease=operation.lease_id)
        return pb.RequestOp(request_put=put)
    if isinstance(operation, Delete):
        delete = pb.DeleteRangeRequest(key=operation.key, range_end=operation.range_end)
        return pb.RequestOp(request_delete_range=delete)
    return pb.RequestOp(request_range=pb.RangeRequest(key=operation.key, range_end=operation.range_end))
