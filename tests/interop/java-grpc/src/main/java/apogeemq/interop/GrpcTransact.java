package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/**
 * Sends {@code --count} messages, each in a transaction of its own, and then answers questions until "stop". What becomes of message number n at
 * once, and what is said when the server asks, is the letter at place n of {@code --say} and of {@code --answer}, from the start again at their
 * ends: {@code c} commit, {@code r} roll back, {@code u} unknown, which at once is nothing. Lines: {@code half} (a half message that the server
 * took, and what was said of it) and {@code asked} (a question, and its answer).
 */
final class GrpcTransact {
    private final ClientServiceProvider provider = ClientServiceProvider.loadService();
    private final String topic;
    private final String prefix;
    private final int count;
    private final String said;
    private final String answers;
    private final Producer producer;

    GrpcTransact(Arguments arguments) throws ClientException {
        topic = arguments.required("topic");
        prefix = arguments.text("prefix", "transaction");
        count = arguments.integer("count", 0);
        said = arguments.text("say", "c");
        answers = arguments.text("answer", "u");
        producer = provider.newProducerBuilder().setClientConfiguration(GrpcDriver.configuration(arguments)).setTopics(topic)
            .setTransactionChecker(this::check).build();
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        Stop stop = GrpcDriver.listen();
        GrpcDriver.reportStarted("transact");
        for (int number = 0; number < count; number++) {
            String key = prefix + "-" + number;
            Transaction transaction = producer.beginTransaction();
            SendReceipt receipt = producer.send(message(key), transaction);
            char letter = letterOf(said, key);
            if (letter == 'c') {
                transaction.commit();
            } else if (letter == 'r') {
                transaction.rollback();
            }
            Line.of("half", key).and("msg_id", receipt.getMessageId()).and("said", String.valueOf(letter)).print();
        }
        while (!stop.await(1000)) {
            // The client answers meanwhile.
        }
        GrpcDriver.close(producer);
        return GrpcDriver.EXIT_DONE;
    }

    private TransactionResolution check(MessageView message) {
        GrpcDelivery delivery = new GrpcDelivery(message);
        char letter = letterOf(answers, delivery.key());
        Line.of("asked", delivery.key()).and("msg_id", message.getMessageId()).and("topic", message.getTopic())
            .and("keys", message.getKeys()).and("said", String.valueOf(letter)).and("at_ms", System.currentTimeMillis()).print();
        switch (letter) {
            case 'c':
                return TransactionResolution.COMMIT;
            case 'r':
                return TransactionResolution.ROLLBACK;
            default:
                return TransactionResolution.UNKNOWN;
        }
    }

    private Message message(String key) {
        return provider.newMessageBuilder().setTopic(topic).setKeys(key).setBody(key.getBytes(StandardCharsets.UTF_8)).build();
    }

    private static char letterOf(String letters, String key) {
        return letters.charAt(Integer.parseInt(key.substring(key.lastIndexOf('-') + 1)) % letters.length());
    }
}
