package apogeemq.interop;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;

/**
 * Sends {@code --count} messages from {@code --threads} threads, each again and again until it is acknowledged; ends
 * early when it is asked to stop. Lines: {@code sent}, {@code failed} and {@code abandoned}. A property is given as {@code --property name=value}.
 * With {@code --delay-ms D} each is to be delivered D ms from when it is sent; those from number {@code --recall-from N} on are taken back at once,
 * with a line {@code recalled}. With {@code --message-groups G} message N goes to the message group N modulo G.
 */
final class GrpcProduce {
    private static final long RETRY_PAUSE_MS = 50;

    private final ClientServiceProvider provider = ClientServiceProvider.loadService();
    private final String topic;
    private final String tag;
    private final String[] property;
    private final String prefix;
    private final int count;
    private final int sizeBytes;
    private final int threads;
    private final long intervalMs;
    private final String delayMs;
    private final int recallFrom;
    private final int messageGroups;
    private final long deadlineNanos;
    private final Producer producer;
    private final AtomicInteger next = new AtomicInteger();
    private final AtomicInteger abandoned = new AtomicInteger();

    GrpcProduce(Arguments arguments) throws ClientException {
        topic = arguments.required("topic");
        tag = arguments.text("tag", "");
        property = arguments.text("property", "").split("=", 2);
        prefix = arguments.text("prefix", "message");
        count = arguments.integer("count", 1);
        sizeBytes = arguments.integer("size-bytes", 0);
        threads = arguments.integer("threads", 2);
        intervalMs = arguments.wide("interval-ms", 0);
        delayMs = arguments.text("delay-ms", "");
        recallFrom = arguments.integer("recall-from", count);
        messageGroups = arguments.integer("message-groups", 0);
        deadlineNanos = System.nanoTime() + TimeUnit.SECONDS.toNanos(arguments.wide("deadline-s", 60));
        producer = provider.newProducerBuilder().setClientConfiguration(GrpcDriver.configuration(arguments)).setTopics(topic).build();
        arguments.refuseUnknown();
    }

    int run() throws InterruptedException {
        Stop stop = GrpcDriver.listen();
        GrpcDriver.reportStarted("produce");
        List<Thread> senders = new ArrayList<>();
        for (int i = 0; i < threads; i++) {
            senders.add(new Thread(() -> sendUntil(stop), "sender-" + i));
        }
        senders.forEach(Thread::start);
        for (Thread sender : senders) {
            sender.join();
        }
        GrpcDriver.close(producer);
        return abandoned.get() == 0 ? GrpcDriver.EXIT_DONE : GrpcDriver.EXIT_DEADLINE;
    }

    private void sendUntil(Stop stop) {
        for (int number = next.getAndIncrement(); number < count && !stop.asked(); number = next.getAndIncrement()) {
            SendReceipt receipt = send(prefix + "-" + number);
            if (number >= recallFrom) {
                recall(prefix + "-" + number, receipt);
            }
            pause(intervalMs);
        }
    }

    private void recall(String key, SendReceipt receipt) {
        try {
            Line.of("recalled", key).and("msg_id", producer.recallMessage(topic, receipt.getRecallHandle()).getMessageId()).print();
        } catch (ClientException error) {
            throw new IllegalStateException("what waits can be taken back", error);
        }
    }

    /** Gives the receipt, or null for a message that was given up. */
    private SendReceipt send(String key) {
        for (int attempt = 1; ; attempt++) {
            try {
                SendReceipt receipt = producer.send(message(key));
                Line.of("sent", key).and("msg_id", receipt.getMessageId()).and("attempts", attempt)
                    .and("at_ms", System.currentTimeMillis()).print();
                return receipt;
            } catch (ClientException | RuntimeException error) {
                Line.of("failed", key).and("attempt", attempt).and("error", error).and("at_ms", System.currentTimeMillis()).print();
            }
            if (System.nanoTime() - deadlineNanos > 0) {
                abandoned.incrementAndGet();
                Line.of("abandoned", key).and("attempts", attempt).print();
                return null;
            }
            pause(RETRY_PAUSE_MS);
        }
    }

    private Message message(String key) {
        MessageBuilder builder = provider.newMessageBuilder().setTopic(topic).setKeys(key).setBody(body(key));
        if (!tag.isEmpty()) {
            builder.setTag(tag);
        }
        if (!delayMs.isEmpty()) {
            builder.setDeliveryTimestamp(System.currentTimeMillis() + Long.parseLong(delayMs));
        }
        if (messageGroups > 0) {
            int number = Integer.parseInt(key.substring(key.lastIndexOf('-') + 1));
            builder.setMessageGroup("group-" + number % messageGroups);
        }
        if (property.length == 2) {
            builder.addProperty(property[0], property[1]);
        }
        return builder.build();
    }

    /** The key, then a space and every byte value in turn where there is room: the judge knows the same rule. */
    private byte[] body(String key) {
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        body.writeBytes(key.getBytes(StandardCharsets.UTF_8));
        if (body.size() < sizeBytes) {
            body.write(' ');
        }
        for (int value = 0; body.size() < sizeBytes; value++) {
            body.write(value);
        }
        return body.toByteArray();
    }

    private static void pause(long milliseconds) {
        if (milliseconds == 0) {
            return;
        }
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException("a sender thread is never interrupted", error);
        }
    }
}
