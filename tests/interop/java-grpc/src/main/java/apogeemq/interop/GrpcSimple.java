package apogeemq.interop;

import java.time.Duration;
import java.util.List;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;

/**
 * Receives in {@code --threads} threads and acknowledges message by message, until it is asked to stop. With {@code --neglect N} it leaves
 * the first delivery of every N-th message alone, as a consumer that died would.
 */
final class GrpcSimple {
    private static final int BATCH_MAX = 32;
    private static final long RETRY_PAUSE_MS = 50;

    private final Duration invisible;
    private final int neglect;
    private final int threads;
    private final SimpleConsumer consumer;

    GrpcSimple(Arguments arguments) throws ClientException {
        invisible = Duration.ofSeconds(arguments.wide("invisible-s", 60));
        neglect = arguments.integer("neglect", 0);
        threads = arguments.integer("threads", 2);
        consumer = ClientServiceProvider.loadService().newSimpleConsumerBuilder()
            .setClientConfiguration(GrpcDriver.configuration(arguments)).setConsumerGroup(arguments.required("group"))
            .setSubscriptionExpressions(GrpcDriver.subscription(arguments))
            .setAwaitDuration(Duration.ofSeconds(arguments.wide("await-s", 10))).build();
        arguments.refuseUnknown();
    }

    int run() throws InterruptedException {
        Stop stop = GrpcDriver.listen();
        GrpcDriver.reportStarted("simple");
        for (int i = 0; i < threads; i++) {
            Thread thread = new Thread(() -> receiveUntil(stop), "receiver-" + i);
            thread.setDaemon(true);
            thread.start();
        }
        while (!stop.await(1000)) {
            // Nothing to do meanwhile.
        }
        GrpcDriver.close(consumer);
        return GrpcDriver.EXIT_DONE;
    }

    private void receiveUntil(Stop stop) {
        while (!stop.asked()) {
            try {
                take(consumer.receive(BATCH_MAX, invisible));
            } catch (ClientException | RuntimeException error) {
                if (stop.asked()) { // the end of a client cancels its receives
                    return;
                }
                Line.of("receive_failed", error).and("at_ms", System.currentTimeMillis()).print();
                pause();
            }
        }
    }

    private void take(List<MessageView> messages) {
        for (MessageView message : messages) {
            GrpcDelivery delivery = new GrpcDelivery(message);
            delivery.reportReceived();
            if (!isNeglected(delivery.key(), message.getDeliveryAttempt())) {
                ack(message, delivery);
            }
        }
    }

    private boolean isNeglected(String key, int attempt) {
        return neglect > 0 && attempt == 1 && Integer.parseInt(key.substring(key.lastIndexOf('-') + 1)) % neglect == 0;
    }

    private void ack(MessageView message, GrpcDelivery delivery) {
        try {
            consumer.ack(message);
        } catch (ClientException | RuntimeException error) {
            delivery.reportSettleFailed(error);
            return;
        }
        delivery.reportSettled();
    }

    private static void pause() {
        try {
            Thread.sleep(RETRY_PAUSE_MS);
        } catch (InterruptedException error) {
            throw new IllegalStateException("a receiver thread is never interrupted", error);
        }
    }
}
