package apogeemq.interop;

import java.util.Collection;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
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
 * <p>It subscribes, or with {@code --seek N} takes every queue of the topic for itself and begins at offset N. With {@code --manual} offsets
 * are committed only when the line "commit" arrives on stdin, which a {@code committed} line answers.
 */
final class LitePull {
    private static final long POLL_MS = 100;
    private static final int SEEK_ATTEMPTS = 5;

    private final String topic;
    private final String tags;
    private final long seek;
    private final long untilIdleMs;
    private final long deadlineMs;
    private final DefaultLitePullConsumer consumer;
    private final AtomicBoolean isCommitAsked = new AtomicBoolean();

    LitePull(Arguments arguments) {
        topic = arguments.required("topic");
        tags = arguments.text("tags", "*");
        seek = arguments.wide("seek", -1);
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
        if (seek < 0) {
            consumer.subscribe(topic, tags);
            consumer.start();
        } else {
            consumer.start();
            takeEveryQueue();
        }
        Line.of("started", "lite-pull").print();
        String reason = pollUntilEnd(stop);
        consumer.shutdown();
        Line.of("summary", "lite-pull").and("reason", reason).print();
        return reason.equals("deadline") ? Driver.EXIT_DEADLINE : Driver.EXIT_DONE;
    }

    private void obey(String line) {
        if (!line.equals("commit")) {
            throw new IllegalArgumentException("stdin takes commit and stop, not " + line);
        }
        isCommitAsked.set(true);
    }

    private void takeEveryQueue() throws MQClientException {
        Collection<MessageQueue> queues = consumer.fetchMessageQueues(topic);
        consumer.assign(queues);
        for (MessageQueue queue : queues) {
            seek(queue);
        }
    }

    /**
     * A seek interrupts the thread that pulls the queue. A client of 5.x takes that interrupt, where it comes before the pull is on its way, for
     * a failed send and closes the connection, and with it whatever other requests wait on it: this seek's own question for the queue's ends,
     * for one. Then the application has to seek again, as with any send that failed.
     */
    private void seek(MessageQueue queue) throws MQClientException {
        for (int attempt = 1; ; attempt++) {
            try {
                consumer.seek(queue, seek);
                return;
            } catch (MQClientException error) {
                if (attempt == SEEK_ATTEMPTS || !(error.getCause() instanceof RemotingSendRequestException)) {
                    throw error;
                }
            }
        }
    }

    private String pollUntilEnd(Stop stop) {
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
