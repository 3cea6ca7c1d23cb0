package apogeemq.interop;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Pulls once from every queue of the topic; prints one {@code pulled} line a queue. It starts at {@code --offset}, or with
 * {@code --beyond-max N} at N behind the queue's max offset. With {@code --block} a pull that finds nothing waits for a message, as long as
 * the client lets it (20 s); with {@code --queue N} it pulls from that queue only.
 */
final class Pull {
    private static final long ROUTE_TIMEOUT_SECONDS = 40;
    private static final long ROUTE_PAUSE_MS = 500;

    private Pull() {
    }

    /** A pull consumer for {@code --group} at {@code --namesrv}, not started. */
    static DefaultMQPullConsumer consumer(Arguments arguments) {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(arguments.required("group"));
        consumer.setNamesrvAddr(arguments.required("namesrv"));
        consumer.setInstanceName(arguments.text("instance", "puller"));
        return consumer;
    }

    /**
     * The topic's queues in order. A broker that was just started may not be known to the name server yet, and one of Apache's was seen to be
     * back there only with its next registration, which comes every 30 s.
     */
    static Set<MessageQueue> queues(DefaultMQPullConsumer consumer, String topic) throws MQClientException, InterruptedException {
        long endNanos = System.nanoTime() + TimeUnit.SECONDS.toNanos(ROUTE_TIMEOUT_SECONDS);
        while (true) {
            try {
                return new TreeSet<>(consumer.fetchSubscribeMessageQueues(topic));
            } catch (MQClientException error) {
                if (System.nanoTime() - endNanos > 0) {
                    throw error;
                }
            }
            Thread.sleep(ROUTE_PAUSE_MS);
        }
    }

    static int run(Arguments arguments) throws Exception {
        String topic = arguments.required("topic");
        String tags = arguments.text("tags", "*");
        long offset = arguments.wide("offset", 0);
        long beyondMax = arguments.wide("beyond-max", -1);
        int max = arguments.integer("max", 32);
        int onlyQueue = arguments.integer("queue", -1);
        boolean isBlocking = arguments.flag("block");
        DefaultMQPullConsumer consumer = consumer(arguments);
        arguments.refuseUnknown();
        consumer.start();
        try {
            for (MessageQueue queue : queues(consumer, topic)) {
                if (onlyQueue >= 0 && queue.getQueueId() != onlyQueue) {
                    continue;
                }
                long start = beyondMax < 0 ? offset : consumer.maxOffset(queue) + beyondMax;
                Line.of("pulling", queue.getQueueId()).print();
                print(queue, isBlocking ? consumer.pullBlockIfNotFound(queue, tags, start, max) : consumer.pull(queue, tags, start, max));
            }
        } finally {
            consumer.shutdown();
        }
        return Driver.EXIT_DONE;
    }

    private static void print(MessageQueue queue, PullResult result) {
        List<String> keys = new ArrayList<>();
        List<Long> offsets = new ArrayList<>();
        if (result.getMsgFoundList() != null) {
            for (MessageExt message : result.getMsgFoundList()) {
                keys.add(Received.key(message));
                offsets.add(message.getQueueOffset());
            }
        }
        Line.of("pulled", queue.getQueueId()).and("broker", queue.getBrokerName()).and("status", result.getPullStatus())
            .and("next", result.getNextBeginOffset()).and("min", result.getMinOffset()).and("max", result.getMaxOffset())
            .and("keys", keys).and("offsets", offsets).print();
    }
}
