package apogeemq.interop;

import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Looks messages of a topic up: by {@code --key}, of those stored from {@code --begin-ms} to {@code --end-ms}, or by {@code --id}, which is a
 * unique key or names a place in the log; several with commas between. Prints {@code received} for each that is found, {@code refused} with
 * the code and the error for a key or id that none is found for.
 */
final class Query {
    private Query() {
    }

    /** One look-up. */
    private interface Search {
        void run() throws Exception;
    }

    static int run(Arguments arguments) throws Exception {
        String topic = arguments.required("topic");
        String keys = arguments.text("key", "");
        String ids = arguments.text("id", "");
        long beginMs = arguments.wide("begin-ms", 0);
        long endMs = arguments.wide("end-ms", Long.MAX_VALUE);
        DefaultMQProducer client = ProducerOptions.producer(arguments, "query");
        arguments.refuseUnknown();
        client.start();
        Line.of("started", "query").print();
        try {
            for (String key : split(keys)) {
                tell(() -> client.queryMessage(topic, key, 32, beginMs, endMs).getMessageList().forEach(Query::print));
            }
            for (String id : split(ids)) {
                tell(() -> print(client.viewMessage(topic, id)));
            }
        } finally {
            client.shutdown();
        }
        return Driver.EXIT_DONE;
    }

    private static String[] split(String words) {
        return words.isEmpty() ? new String[0] : words.split(",");
    }

    private static void tell(Search search) throws Exception {
        try {
            search.run();
        } catch (MQClientException error) {
            refused(error.getResponseCode(), error);
        } catch (MQBrokerException error) {
            refused(error.getResponseCode(), error);
        }
    }

    private static void print(MessageExt message) {
        if (message == null) {
            refused(-1, new IllegalStateException("null instead of a message"));
        } else {
            Received.line(message, "found").print();
        }
    }

    private static void refused(int code, Exception error) {
        Line.of("refused", "query").and("code", code).and("error", error.toString()).print();
    }
}
