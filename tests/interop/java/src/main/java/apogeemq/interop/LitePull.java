package apogeemq.interop;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.exception.RemotingSendRequestException;

/**
 * A lite pull consumer; prints a {@code received} line for each message polled, until "stop" on stdin or {@code --until-idle-ms} after
 * the last one.
 *
 * <p>It subscribes, or with {@code --assign} takes every queue of the topic for itself. With {@code --manual} offsets are committed only when the
 * line "commit" arrives on stdin, which a {@code committed} line answers. The line "seek N" lets every queue taken go on at offset N, which a
 * {@code sought} line answers.
 */
final class LitePull {
    private static final long POLL_MS = 100;
    private static final int SEEK_ATTEMPTS = 5;
    private static final String SEEK = "seek ";

    private final String topic;
    private final String tags;
    private final boolean isAssigned;
    private final long untilIdleMs;
    private final long deadlineMs;
    private final DefaultLitePullConsumer consumer;
    private final AtomicBoolean isCommitAsked = new AtomicBoolean();
    private final AtomicReference<Long> seekAsked = new AtomicReference<>();

    LitePull(Arguments arguments) {
        topic = arguments.required("topic");
        tags = arguments.text("tags", "*");
        isAssigned = arguments.flag("assign");
        untilIdleMs = arguments.wide("until-idle-ms", Long.MAX_VALUE);
        deadlineMs = TimeUnit.SECONDS.toMillis(arguments.wide("deadline", 60));
        consumer = new DefaultLitePullConsumer(arguments.required("group"));
        consumer.setNamesrvAddr(arguments.required("namesrv"));
        consumer.setInstanceName(arguments.text("instance", "lite"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(!arguments.flag("manual"));
        consumer.setAutoCommitIntervalMillis(1000);
        consumer.setHeartbeatBrokerInterval(1000);
        arguments.refuseUnknown();
    }

    int run() throws MQClientException, InterruptedException {
        Stop stop = Stop.listen(this::obey);
        if (isAssigned) {
            consumer.start();
            consumer.assign(consumer.fetchMessageQueues(topic));
        } else {
            consumer.subscribe(topic, tags);
            consumer.start();
        }
        Line.of("started", "lite-pull").print();
        String reason = pollUntilEnd(stop);
        consumer.shutdown();
        Line.of("summary", "lite-pull").and("reason", reason).print();
        return reason.equals("deadline") ? Driver.EXIT_DEADLINE : Driver.EXIT_DONE;
    }

    private void obey(String line) {
        if (line.equals("commit")) {
            isCommitAsked.set(true);
        } else if (isAssigned && line.startsWith(SEEK)) {
            seekAsked.set(Long.valueOf(line.substring(SEEK.length())));
        } else {
            throw new IllegalArgumentException("stdin takes commit, stop and with --assign seek N, not " + line);
        }
    }

    /**
     * A seek interrupts the thread that pulls the queue. A client of 5.x takes that interrupt, where it comes before the pull is on its way, for
     * a failed send and closes the connection, and with it whatever other requests wait on it: this seek's own question for the queue's ends,
     * for one. Then the application has to seek again, as with any send that failed.
     */
    private void seek(MessageQueue queue, long offset) throws MQClientException {
        for (int attempt = 1; ; attempt++) {
            try {
                consumer.seek(queue, offset);
                return;
            } catch (MQClientException error) {
                if (attempt == SEEK_ATTEMPTS || !(error.getCause() instanceof RemotingSendRequestException)) {
                    throw error;
                }
            }
        }
    }

    private String pollUntilEnd(Stop stop) throws MQClientException {
        long endNanos = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(deadlineMs);
        long lastNanos = 0;
        int polled = 0;
        while (!stop.asked()) {
            for (MessageExt message : consumer.poll(POLL_MS)) {
                Received.line(message, "success").print();
                lastNanos = System.nanoTime();
                polled++;
            }
            if (isCommitAsked.getAndSet(false)) {
                consumer.commitSync();
                Line.of("committed", polled).print();
            }
            Long offset = seekAsked.getAndSet(null);
            if (offset != null) {
                for (MessageQueue queue : consumer.fetchMessageQueues(topic)) {
                    seek(queue, offset);
                }
                Line.of("sought", offset).print();
            }
            if (polled > 0 && TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - lastNanos) >= untilIdleMs) {
                return "idle";
            }
            if (System.nanoTime() - endNanos > 0) {
                return "deadline";
            }
        }
        return "stop";
    }
}
