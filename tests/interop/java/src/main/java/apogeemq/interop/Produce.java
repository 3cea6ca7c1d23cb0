package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Sends {@code --count} messages with the keys {@code prefix-0 ... prefix-(count-1)}; a message's body starts with its key. In mode
 * {@code ordered} those whose numbers are equal modulo {@code --shards} go to one queue. How the producer is set up: {@link ProducerOptions}.
 *
 * <p>Each message (or batch) is tried until it is acknowledged or the deadline passes, so the run survives a broker's restart. Lines:
 * {@code acked} (one a message, with the number of attempts: above 1 the message may be stored more than once), {@code sent} (oneway, which
 * nobody acknowledges), {@code failed} (one attempt), {@code abandoned} (given up at the deadline) and a {@code summary}.
 */
final class Produce {
    private static final long RETRY_PAUSE_MS = 200;

    private final String topic;
    private final String tags;
    private final String mode;
    private final String prefix;
    private final int count;
    private final int sizeBytes;
    private final int batchSize;
    private final int concurrency;
    private final int shards;
    private final int propertyBytes;
    private final long intervalMs;
    private final long deadlineNanos;
    private final DefaultMQProducer producer;
    private final AtomicInteger acked = new AtomicInteger();
    private final AtomicInteger failures = new AtomicInteger();
    private final AtomicInteger abandoned = new AtomicInteger();

    Produce(Arguments arguments) {
        topic = arguments.required("topic");
        tags = arguments.text("tags", "");
        mode = arguments.text("mode", "sync");
        prefix = arguments.text("prefix", "message");
        count = arguments.integer("count", 1);
        sizeBytes = arguments.integer("size-bytes", 0);
        batchSize = arguments.integer("batch-size", 32);
        concurrency = arguments.integer("concurrency", 1);
        intervalMs = arguments.wide("interval-ms", 0);
        deadlineNanos = System.nanoTime() + TimeUnit.SECONDS.toNanos(arguments.wide("deadline", 60));
        shards = arguments.integer("shards", 1);
        propertyBytes = arguments.integer("property-bytes", 0);
        producer = ProducerOptions.producer(arguments, "producer-" + prefix);
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        long startNanos = System.nanoTime();
        producer.start();
        Line.of("started", "produce").and("mode", mode).print();
        try {
            sendAll();
        } finally {
            producer.shutdown();
        }
        Line.of("summary", "produce").and("mode", mode).and("acked", acked.get()).and("failures", failures.get())
            .and("abandoned", abandoned.get()).and("elapsedMs", TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - startNanos)).print();
        return abandoned.get() == 0 ? Driver.EXIT_DONE : Driver.EXIT_DEADLINE;
    }

    private void sendAll() throws Exception {
        switch (mode) {
            case "sync":
                sendFromThreads(1, units -> producer.send(units.get(0)));
                break;
            case "ordered":
                sendFromThreads(1, units -> producer.send(units.get(0), new SelectMessageQueueByHash(), shardOf(units.get(0).getKeys())));
                break;
            case "batch":
                sendFromThreads(batchSize, producer::send);
                break;
            case "async":
                sendAsync();
                break;
            case "oneway":
                sendOneway();
                break;
            default:
                throw new IllegalArgumentException("--mode is sync, ordered, async, oneway or batch, not " + mode);
        }
    }

    /** Sends the messages of one unit; returns when the broker has answered. */
    private interface Sender {
        SendResult send(List<Message> unit) throws Exception;
    }

    private void sendFromThreads(int unitSize, Sender sender) throws InterruptedException {
        AtomicInteger next = new AtomicInteger();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < concurrency; i++) {
            threads.add(new Thread(() -> sendUnits(next, unitSize, sender), "sender-" + i));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private void sendUnits(AtomicInteger next, int unitSize, Sender sender) {
        for (int first = next.getAndAdd(unitSize); first < count; first = next.getAndAdd(unitSize)) {
            List<Message> unit = new ArrayList<>();
            for (int number = first; number < Math.min(first + unitSize, count); number++) {
                unit.add(message(number));
            }
            sendUntilAcked(unit, sender);
            pause(intervalMs);
        }
    }

    private void sendUntilAcked(List<Message> unit, Sender sender) {
        for (int attempt = 1; ; attempt++) {
            try {
                reportAcked(unit, sender.send(unit), attempt);
                return;
            } catch (Exception error) {
                reportFailed(unit, error, attempt);
            }
            if (isPastDeadline()) {
                reportAbandoned(unit, attempt);
                return;
            }
            pause(RETRY_PAUSE_MS);
        }
    }

    private void sendAsync() throws InterruptedException {
        Semaphore inFlight = new Semaphore(concurrency);
        CountDownLatch finished = new CountDownLatch(count);
        ScheduledThreadPoolExecutor retries = new ScheduledThreadPoolExecutor(1);
        for (int number = 0; number < count; number++) {
            inFlight.acquire();
            trySendAsync(message(number), 1, retries, () -> {
                inFlight.release();
                finished.countDown();
            });
            pause(intervalMs);
        }
        finished.await();
        retries.shutdownNow();
    }

    private void trySendAsync(Message message, int attempt, ScheduledThreadPoolExecutor retries, Runnable onFinished) {
        List<Message> unit = Collections.singletonList(message);
        SendCallback callback = new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                reportAcked(unit, result, attempt);
                onFinished.run();
            }

            @Override
            public void onException(Throwable error) {
                reportFailed(unit, error, attempt);
                if (isPastDeadline()) {
                    reportAbandoned(unit, attempt);
                    onFinished.run();
                    return;
                }
                retries.schedule(() -> trySendAsync(message, attempt + 1, retries, onFinished), RETRY_PAUSE_MS, TimeUnit.MILLISECONDS);
            }
        };
        try {
            producer.send(message, callback);
        } catch (Exception error) {
            callback.onException(error);
        }
    }

    private void sendOneway() throws Exception {
        for (int number = 0; number < count; number++) {
            List<Message> unit = Collections.singletonList(message(number));
            sendUntilAcked(unit, messages -> {
                producer.sendOneway(messages.get(0));
                return null;
            });
            pause(intervalMs);
        }
        waitUntilWritten();
    }

    /** Requests and oneway sends share a connection, so an answer shows that every oneway send before it has left this process. */
    private void waitUntilWritten() throws MQClientException {
        for (MessageQueue queue : producer.fetchPublishMessageQueues(topic)) {
            producer.maxOffset(queue);
        }
    }

    private Message message(int number) {
        String key = prefix + "-" + number;
        StringBuilder body = new StringBuilder(key);
        if (body.length() < sizeBytes) {
            body.append(' ');
        }
        while (body.length() < sizeBytes) {
            body.append((char) ('a' + body.length() % 26));
        }
        Message message = new Message(topic, tags, key, body.toString().getBytes(StandardCharsets.UTF_8));
        if (propertyBytes > 0) {
            message.putUserProperty("long", "x".repeat(propertyBytes));
        }
        return message;
    }

    /** The shard of {@code prefix-number}, by which an ordered send chooses its queue. */
    private Integer shardOf(String key) {
        return Integer.parseInt(key.substring(prefix.length() + 1)) % shards;
    }

    private void reportAcked(List<Message> unit, SendResult result, int attempt) {
        acked.addAndGet(unit.size());
        if (result == null) {
            unit.forEach(message -> Line.of("sent", message.getKeys()).and("attempts", attempt).print());
            return;
        }
        String[] messageIds = result.getMsgId().split(",");
        for (int i = 0; i < unit.size(); i++) {
            Line.of("acked", unit.get(i).getKeys()).and("msgId", messageIds[i]).and("broker", result.getMessageQueue().getBrokerName())
                .and("queueId", result.getMessageQueue().getQueueId()).and("queueOffset", result.getQueueOffset() + i)
                .and("status", result.getSendStatus()).and("attempts", attempt).print();
        }
    }

    private void reportFailed(List<Message> unit, Throwable error, int attempt) {
        failures.addAndGet(unit.size());
        unit.forEach(message -> Line.of("failed", message.getKeys()).and("attempt", attempt).and("code", codeOf(error))
            .and("error", error.toString()).print());
    }

    private void reportAbandoned(List<Message> unit, int attempt) {
        abandoned.addAndGet(unit.size());
        unit.forEach(message -> Line.of("abandoned", message.getKeys()).and("attempts", attempt).print());
    }

    private static Integer codeOf(Throwable error) {
        if (error instanceof MQBrokerException) {
            return ((MQBrokerException) error).getResponseCode();
        }
        if (error instanceof MQClientException) {
            return ((MQClientException) error).getResponseCode();
        }
        return null;
    }

    private boolean isPastDeadline() {
        return System.nanoTime() - deadlineNanos > 0;
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
