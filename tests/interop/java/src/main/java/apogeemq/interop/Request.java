package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.common.message.Message;

/**
 * Sends {@code --count} requests, {@code prefix-0} and so on, each with its key as body, and waits {@code --wait-ms} for the reply to each, with
 * {@code --async} for all at once. Lines: {@code answered} (key and the reply's body) and {@code unanswered} (key and the client's error).
 */
final class Request {
    private final String topic;
    private final String prefix;
    private final int count;
    private final long waitMs;
    private final boolean isAsync;
    private final DefaultMQProducer producer;

    Request(Arguments arguments) {
        topic = arguments.required("topic");
        prefix = arguments.text("prefix", "request");
        count = arguments.integer("count", 1);
        waitMs = arguments.wide("wait-ms", 10_000);
        isAsync = arguments.flag("async");
        producer = ProducerOptions.producer(arguments, "requester");
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        producer.start();
        Line.of("started", "request").print();
        try {
            if (isAsync) {
                requestAll();
            } else {
                for (int number = 0; number < count; number++) {
                    request(prefix + "-" + number);
                }
            }
        } finally {
            producer.shutdown();
        }
        return Driver.EXIT_DONE;
    }

    private void request(String key) {
        try {
            answered(key, producer.request(message(key), waitMs));
        } catch (Exception error) {
            unanswered(key, error);
        }
    }

    private void requestAll() throws Exception {
        CountDownLatch open = new CountDownLatch(count);
        for (int number = 0; number < count; number++) {
            String key = prefix + "-" + number;
            producer.request(message(key), new RequestCallback() {
                @Override
                public void onSuccess(Message reply) {
                    answered(key, reply);
                    open.countDown();
                }

                @Override
                public void onException(Throwable error) {
                    unanswered(key, error);
                    open.countDown();
                }
            }, waitMs);
        }
        open.await();
    }

    private Message message(String key) {
        return new Message(topic, "", key, key.getBytes(StandardCharsets.UTF_8));
    }

    private static void answered(String key, Message reply) {
        Line.of("answered", key).and("body", new String(reply.getBody(), StandardCharsets.UTF_8)).print();
    }

    private static void unanswered(String key, Throwable error) {
        Line.of("unanswered", key).and("error", error.getClass().getSimpleName()).print();
    }
}
