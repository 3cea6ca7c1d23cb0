"""Transactions that their producer ends at once, or when it is asked, or only after it has not known for a while."""

from collections.abc import Callable
from random import Random

from apogeemq.remoting_codec.bodies import HeartbeatData, ProducerData
from apogeemq.remoting_codec.codes import MessageSysFlag, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_record

from tests.chaos.history import Decision, End, History, Kind, Send
from tests.chaos.worker import Reader, Worker
from tests.config_files import QUEUES
from tests.e2e.wire_client import WireClient

TOPIC, GROUP, PRODUCERS = "ChaosTransaction", "chaos_transaction", "chaos_producers"
COMMIT_SHARE = 0.6
AT_ONCE_SHARE = 0.7
UNSURE_SHARE = 0.2
_FLAGS = {
    Decision.COMMIT: MessageSysFlag.TRANSACTION_COMMIT_TYPE,
    Decision.ROLLBACK: MessageSysFlag.TRANSACTION_ROLLBACK_TYPE,
    None: MessageSysFlag.TRANSACTION_NOT_TYPE,
}


class TransactionWorker(Worker):
    """Decides when it sends, and stays with that."""

    name = "transaction"

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(where, history, random)
        self._reader = Reader(TOPIC, GROUP, QUEUES)
        self._decisions: dict[str, Decision] = {}

    def connected(self, client: WireClient) -> None:
        beat = HeartbeatData(client_id="chaos", producer_data_set=[ProducerData(group_name=PRODUCERS)])
        reply = client.request(RequestCode.HEART_BEAT, {}, beat.encode())
        if reply.code != ResponseCode.SUCCESS:  # not master yet: it would never ask one that it does not know
            raise ConnectionError(f"the heartbeat was refused: {reply}")

    def step(self, client: WireClient) -> None:
        if self.is_sending:
            self._transact(client)
        while client.pushed:
            self._answer(client, client.pushed.pop(0))
        self._reader.read(client, self.history)

    def _transact(self, client: WireClient) -> None:
        decision = Decision.COMMIT if self.random.random() < COMMIT_SHARE else Decision.ROLLBACK
        send = Send(key=self.next_key(), kind=Kind.TRANSACTION, decision=decision)
        self._decisions[send.key] = decision
        properties = {"TRAN_MSG": "true", "PGROUP": PRODUCERS}
        flag = str(int(MessageSysFlag.TRANSACTION_PREPARED_TYPE))
        told = self.send(client, send, TOPIC, self.random.randrange(QUEUES), properties, f=flag)
        if told and self.random.random() < AT_ONCE_SHARE:
            self._end(client, send.key, decision, told["queueOffset"], str(int(told["msgId"][-16:], 16)))

    def _answer(self, client: WireClient, question: RemotingCommand) -> None:
        assert question.code == RequestCode.CHECK_TRANSACTION_STATE, question
        key, fields = decode_record(question.body).body.decode(), question.ext_fields or {}
        is_unsure = self.is_sending and self.random.random() < UNSURE_SHARE
        decision = None if is_unsure else self._decisions[key]
        self._end(client, key, decision, fields["tranStateTableOffset"], fields["commitLogOffset"])

    def _end(
        self, client: WireClient, key: str, decision: Decision | None, queue_offset: str, physical_offset: str
    ) -> None:
        fields = {
            "topic": TOPIC,
            "producerGroup": PRODUCERS,
            "tranStateTableOffset": queue_offset,
            "commitLogOffset": physical_offset,
            "commitOrRollback": str(int(_FLAGS[decision])),
            "fromTransactionCheck": "false",
            "msgId": key,
        }
        if decision is None:
            client.request(RequestCode.END_TRANSACTION, fields)
        else:
            self.ask(client, self.history.add(End(key=key, decision=decision)), RequestCode.END_TRANSACTION, fields)
