package apogeemq.interop;

import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Looks messages of a topic up: by {@code --key}, of those stored from {@code --begin-ms} to {@code --end-ms}, or by {@code --id}, which is a
 * unique key or names a place in the log. Prints {@code received} for each that is found, or {@code refused} with the code and the error.
 */
final class Query {
    private Query() {
    }

    static int run(Arguments arguments) throws Exception {
        String topic = arguments.required("topic");
        String key = arguments.text("key", null);
        String id = arguments.text("id", null);
        long beginMs = arguments.wide("begin-ms", 0);
        long endMs = arguments.wide("end-ms", Long.MAX_VALUE);
        DefaultMQProducer client = ProducerOptions.producer(arguments, "query");
        arguments.refuseUnknown();
        client.start();
        Line.of("started", "query").print();
        try {
            if (key == null) {
                print(client.viewMessage(topic, id));
            } else {
                client.queryMessage(topic, key, 32, beginMs, endMs).getMessageList().forEach(Query::print);
            }
        } catch (MQClientException error) {
            refused(error.getResponseCode(), error);
        } catch (MQBrokerException error) {
            refused(error.getResponseCode(), error);
        } finally {
            client.shutdown();
        }
        return Driver.EXIT_DONE;
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
