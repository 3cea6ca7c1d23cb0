package apogeemq.interop;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Prints one {@code queue} line per queue: its min and max offset, the group's committed offset (-1: none), when its
 * oldest message was stored (-1: there is none) and, with {@code --timestamp-ms},
 * the offset that the broker finds for that store time.
 */
final class Offsets {
    private Offsets() {
    }

    static int run(Arguments arguments) throws MQClientException, InterruptedException {
        String topic = arguments.required("topic");
        long timestampMs = arguments.wide("timestamp-ms", -1);
        DefaultMQPullConsumer consumer = Pull.consumer(arguments);
        arguments.refuseUnknown();
        consumer.start();
        try {
            for (MessageQueue queue : Pull.queues(consumer, topic)) {
                Line line = Line.of("queue", queue.getQueueId()).and("broker", queue.getBrokerName()).and("min", consumer.minOffset(queue))
                    .and("max", consumer.maxOffset(queue)).and("committed", consumer.fetchConsumeOffset(queue, true))
                    .and("earliestMs", consumer.earliestMsgStoreTime(queue));
                if (timestampMs >= 0) {
                    line.and("byTime", consumer.searchOffset(queue, timestampMs));
                }
                line.print();
            }
        } finally {
            consumer.shutdown();
        }
        return Driver.EXIT_DONE;
    }
}
