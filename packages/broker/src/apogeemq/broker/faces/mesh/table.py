"""The table of all calls that a broker answers: what a mesh listener serves, and what a proxy in this process calls."""

from collections.abc import Callable, Hashable

from apogeemq.broker.faces.mesh.answers import CallStats, answer
from apogeemq.broker.faces.mesh.clients import ClientAnswers
from apogeemq.broker.faces.mesh.dead_letters import DeadLetterAnswers
from apogeemq.broker.faces.mesh.offsets import OffsetAnswers
from apogeemq.broker.faces.mesh.pops import PopAnswers
from apogeemq.broker.faces.mesh.recalls import RecallAnswers
from apogeemq.broker.faces.mesh.sends import SendAnswers
from apogeemq.broker.faces.mesh.settling import SettlingAnswers
from apogeemq.broker.faces.mesh.topics import TopicAnswers
from apogeemq.broker.faces.mesh.transactions import TransactionAnswers
from apogeemq.mesh.calls import CallTable
from apogeemq.mesh.v1 import methods
from opentelemetry.trace import Tracer


def call_table(
    *,
    sends: SendAnswers,
    recalls: RecallAnswers,
    pops: PopAnswers,
    settling: SettlingAnswers,
    dead_letters: DeadLetterAnswers,
    topics: TopicAnswers,
    clients: ClientAnswers,
    offsets: OffsetAnswers,
    transactions: TransactionAnswers,
    stats: CallStats,
    on_owner_gone: Callable[[Hashable], None],
    tracer: Tracer | None,
) -> CallTable:
    """Put the families together."""
    return CallTable(
        [
            answer(methods.SEND_MESSAGE, sends.send_message, stats),
            answer(methods.POP_MESSAGE, pops.pop_message, stats),
            answer(methods.ACK_MESSAGE, settling.ack_message, stats),
            answer(methods.CHANGE_INVISIBLE_TIME, settling.change_invisible_time, stats),
            answer(methods.EXTEND_INVISIBLE, settling.extend_invisible, stats),
            answer(methods.QUERY_TOPIC, topics.query_topic, stats),
            answer(methods.ENSURE_TOPIC, topics.ensure_topic, stats),
            answer(methods.QUERY_GROUP, topics.query_group, stats),
            answer(methods.CLIENT_HEARTBEAT, clients.client_heartbeat, stats),
            answer(methods.UNREGISTER_CLIENT, clients.unregister_client, stats),
            answer(methods.QUERY_OFFSET, offsets.query_offset, stats),
            answer(methods.UPDATE_OFFSET, offsets.update_offset, stats),
            answer(methods.RECALL_MESSAGE, recalls.recall_message, stats),
            answer(methods.FORWARD_TO_DEAD_LETTER_QUEUE, dead_letters.forward_to_dead_letter_queue, stats),
            answer(methods.TAKE_TRANSACTION_CHECKS, transactions.take_transaction_checks, stats),
            answer(methods.END_TRANSACTION, transactions.end_transaction, stats),
        ],
        on_owner_gone=on_owner_gone,
        tracer=tracer,
    )
