package apogeemq.interop;

import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * A push consumer; what it subscribes to and where it begins: {@link PushOptions}. Lines: {@code received} (one a delivery, with its verdict),
 * {@code members} (how many members of the group this one sees, whenever that changes), {@code assigned} (the queues that it holds, whenever
 * they change; a retry topic's are left out) and a {@code summary} with the reason for the end. Offsets are committed at the end. One that
 * cannot start prints {@code refused}.
 *
 * <p>With {@code --hold} it takes no queue until the line "resume" arrives on stdin. A group whose members see each other before any of them
 * takes a queue never moves a queue from one to the other, which may cause duplicates. The line "suspend" makes the client stop delivering
 * until "resume".
 */
final class Consume {
    private static final long POLL_MS = 50;
    private static final String RETRY_PREFIX = "%RETRY%";

    private final String topic;
    private final PushOptions options;
    private final boolean isOrderly;
    private final int failFirst;
    private final int retryLevel;
    private final boolean isShowingProperties;
    private final int expect;
    private final long untilIdleMs;
    private final long deadlineMs;
    private final DefaultMQPushConsumer consumer;
    private final Set<String> consumed = ConcurrentHashMap.newKeySet();
    private final AtomicInteger deliveries = new AtomicInteger();
    private final AtomicLong lastDeliveryNanos = new AtomicLong();
    private final AtomicInteger members = new AtomicInteger();
    private volatile boolean isHolding;
    private Set<String> assigned = new TreeSet<>();

    Consume(Arguments arguments) {
        topic = arguments.required("topic");
        options = new PushOptions(arguments);
        isOrderly = arguments.flag("orderly");
        isHolding = arguments.flag("hold");
        failFirst = arguments.integer("fail-first", 0);
        retryLevel = arguments.integer("retry-level", 0);
        isShowingProperties = arguments.flag("properties");
        expect = arguments.integer("expect", Integer.MAX_VALUE);
        untilIdleMs = arguments.wide("until-idle-ms", Long.MAX_VALUE);
        deadlineMs = TimeUnit.SECONDS.toMillis(arguments.wide("deadline", 60));
        consumer = new DefaultMQPushConsumer(arguments.required("group"), arguments.flag("trace"), null);
        ProducerOptions.useNamespace(consumer, arguments);
        consumer.setNamesrvAddr(arguments.required("namesrv"));
        consumer.setInstanceName(arguments.text("instance", "consumer"));
        options.apply(consumer);
        // A subscription that changes while another heartbeat is on its way is told with the next one: until then every pull is refused
        // with SUBSCRIPTION_NOT_LATEST (25), which at the default of 30 s would look like a lost message.
        consumer.setHeartbeatBrokerInterval(1000);
        consumer.setPersistConsumerOffsetInterval(arguments.integer("persist-ms", 1000));
        consumer.setSuspendCurrentQueueTimeMillis(100);
        // At its default of 0 the client ends with messages in hand, and what the listener had finished with is not committed.
        consumer.setAwaitTerminationMillisWhenShutdown(5000);
        consumer.setAllocateMessageQueueStrategy(new AllocateMessageQueueAveragely() {
            @Override
            public List<MessageQueue> allocate(String group, String self, List<MessageQueue> queues, List<String> clientIds) {
                reportMembers(clientIds.size());
                return isHolding ? Collections.emptyList() : super.allocate(group, self, queues, clientIds);
            }
        });
        int threads = arguments.integer("threads", 4);
        consumer.setConsumeThreadMin(threads);
        consumer.setConsumeThreadMax(threads);
        arguments.refuseUnknown();
    }

    int run() throws MQClientException, InterruptedException {
        Stop stop = Stop.listen(this::obey);
        options.subscribe(consumer, topic);
        if (isOrderly) {
            consumer.registerMessageListener((MessageListenerOrderly) this::consumeOrderly);
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) this::consumeConcurrently);
        }
        try {
            consumer.start();
        } catch (MQClientException error) {
            Line.of("refused", "consume").and("code", error.getResponseCode()).and("error", error.getErrorMessage()).print();
            return Driver.EXIT_DONE;
        }
        lastDeliveryNanos.set(System.nanoTime());
        Line.of("started", "consume").print();
        String reason = waitForEnd(stop);
        consumer.shutdown();
        Line.of("summary", "consume").and("reason", reason).and("deliveries", deliveries.get()).and("consumed", consumed.size()).print();
        return reason.equals("deadline") ? Driver.EXIT_DEADLINE : Driver.EXIT_DONE;
    }

    private void obey(String line) {
        switch (line) {
            case "suspend":
                consumer.suspend();
                Line.of("suspended", true).print();
                break;
            case "resume":
                isHolding = false;
                if (consumer.getDefaultMQPushConsumerImpl().isPause()) {
                    consumer.resume();
                }
                break;
            default:
                throw new IllegalArgumentException("stdin takes resume, suspend and stop, not " + line);
        }
    }

    private void reportMembers(int count) {
        if (members.getAndSet(count) != count) {
            Line.of("members", count).print();
        }
    }

    private String waitForEnd(Stop stop) throws InterruptedException {
        long endNanos = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(deadlineMs);
        while (!stop.await(POLL_MS)) {
            reportAssigned();
            if (consumed.size() >= expect) {
                return "expected";
            }
            if (TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - lastDeliveryNanos.get()) >= untilIdleMs) {
                return "idle";
            }
            if (System.nanoTime() - endNanos > 0) {
                return "deadline";
            }
        }
        return "stop";
    }

    private void reportAssigned() {
        Set<String> now = new TreeSet<>();
        for (MessageQueue queue : consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()) {
            if (!queue.getTopic().startsWith(RETRY_PREFIX)) {
                now.add(queue.getBrokerName() + ":" + queue.getQueueId());
            }
        }
        if (!now.equals(assigned)) {
            assigned = now;
            Line.of("assigned", now).print();
        }
    }

    private ConsumeConcurrentlyStatus consumeConcurrently(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
        context.setDelayLevelWhenNextConsume(retryLevel);
        return take(messages) ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
    }

    private ConsumeOrderlyStatus consumeOrderly(List<MessageExt> messages, ConsumeOrderlyContext context) {
        return take(messages) ? ConsumeOrderlyStatus.SUCCESS : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
    }

    /** The client's default hands over one message at a time, so one verdict for the list is one for each message. */
    private boolean take(List<MessageExt> messages) {
        boolean isFine = true;
        for (MessageExt message : messages) {
            isFine &= message.getReconsumeTimes() >= failFirst;
        }
        for (MessageExt message : messages) {
            report(message, isFine);
        }
        return isFine;
    }

    private void report(MessageExt message, boolean isFine) {
        deliveries.incrementAndGet();
        lastDeliveryNanos.set(System.nanoTime());
        Line line = Received.line(message, isFine ? "success" : "later");
        if (isShowingProperties) {
            line.and("properties", message.getProperties());
        }
        line.print();
        if (isFine) {
            consumed.add(Received.key(message));
        }
    }
}
