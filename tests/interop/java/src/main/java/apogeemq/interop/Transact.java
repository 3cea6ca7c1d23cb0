package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Sends {@code --count} messages, each in a transaction of its own, and then answers questions until "stop". What it says of message number n
 * at once, and when it is asked, is the letter at place n of {@code --say} and of {@code --answer}, from the start again at their ends:
 * {@code c} commit, {@code r} roll back, {@code u} unknown. Lines: {@code half} (a half message that the broker took, and what was said of it)
 * and {@code asked} (a question, and its answer).
 */
final class Transact {
    private final String topic;
    private final String prefix;
    private final int count;
    private final String said;
    private final String answers;
    private final TransactionMQProducer producer;

    Transact(Arguments arguments) {
        topic = arguments.required("topic");
        prefix = arguments.text("prefix", "transaction");
        count = arguments.integer("count", 0);
        said = arguments.text("say", "c");
        answers = arguments.text("answer", "u");
        producer = new TransactionMQProducer(arguments.required("group"));
        producer.setNamesrvAddr(arguments.required("namesrv"));
        producer.setInstanceName(arguments.text("instance", "transactor"));
        producer.setPollNameServerInterval(1000);
        producer.setHeartbeatBrokerInterval(1000);
        producer.setTransactionListener(new Decisions());
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        Stop stop = Stop.listen(line -> {
            throw new IllegalArgumentException("stdin takes stop only, not " + line);
        });
        producer.start();
        // One that only answers must be known to the brokers, and those it learns from the topic's route.
        producer.fetchPublishMessageQueues(topic);
        Line.of("started", "transact").print();
        for (int number = 0; number < count; number++) {
            String key = prefix + "-" + number;
            Message message = new Message(topic, "", key, key.getBytes(StandardCharsets.UTF_8));
            TransactionSendResult result = producer.sendMessageInTransaction(message, null);
            Line.of("half", key).and("msgId", result.getMsgId()).and("status", result.getSendStatus())
                .and("state", result.getLocalTransactionState()).print();
        }
        stop.await(Long.MAX_VALUE);
        producer.shutdown();
        return Driver.EXIT_DONE;
    }

    private final class Decisions implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object unused) {
            return stateOf(said, message);
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            LocalTransactionState state = stateOf(answers, message);
            Line.of("asked", message.getKeys()).and("msgId", message.getTransactionId()).and("topic", message.getTopic())
                .and("body", new String(message.getBody(), StandardCharsets.UTF_8)).and("state", state).print();
            return state;
        }
    }

    private static LocalTransactionState stateOf(String letters, Message message) {
        int number = Integer.parseInt(message.getKeys().substring(message.getKeys().lastIndexOf('-') + 1));
        switch (letters.charAt(number % letters.length())) {
            case 'c':
                return LocalTransactionState.COMMIT_MESSAGE;
            case 'r':
                return LocalTransactionState.ROLLBACK_MESSAGE;
            case 'u':
                return LocalTransactionState.UNKNOW;
            default:
                throw new IllegalArgumentException("a decision is c, r or u, not one of " + letters);
        }
    }
}
