package apogeemq.interop;

import java.lang.reflect.Field;
import java.util.Arrays;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.impl.consumer.DefaultMQPushConsumerImpl;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;

/**
 * What a push consumer subscribes to, and how it shares and begins:
 *
 * <pre>
 * --tags EXPRESSION | --sql EXPRESSION   what it wants (default: everything)
 * --from FIRST_OFFSET | LAST_OFFSET | TIMESTAMP   where a group without an offset begins (default: first)
 * --from-time yyyyMMddHHmmss             the time for TIMESTAMP
 * --broadcast                            every member gets every message
 * --broker-shares                        the broker says which queues each member gets, and whether it pulls or pops (5.x);
 *                                        a popped message is hidden for 5 s, and one that failed comes again after 2 s
 * --max-reconsume N                      after N retries a message goes to the DLQ
 * --poll-namesrv-ms N                    how often it asks for routes (default: 1000)
 * </pre>
 */
final class PushOptions {
    /** The least that the client takes. */
    private static final long POP_INVISIBLE_MS = 5000;
    private static final int POP_RETRY_SECONDS = 2;

    private final String tags;
    private final String sql;
    private final ConsumeFromWhere from;
    private final String fromTime;
    private final boolean isBroadcast;
    private final boolean isSharedByBroker;
    private final int maxReconsume;
    private final int pollNamesrvMs;

    PushOptions(Arguments arguments) {
        tags = arguments.text("tags", "*");
        sql = arguments.text("sql", null);
        from = ConsumeFromWhere.valueOf("CONSUME_FROM_" + arguments.text("from", "FIRST_OFFSET"));
        fromTime = arguments.text("from-time", null);
        isBroadcast = arguments.flag("broadcast");
        isSharedByBroker = arguments.flag("broker-shares");
        maxReconsume = arguments.integer("max-reconsume", -1);
        pollNamesrvMs = arguments.integer("poll-namesrv-ms", 1000);
    }

    void apply(DefaultMQPushConsumer consumer) {
        consumer.setConsumeFromWhere(from);
        if (fromTime != null) {
            consumer.setConsumeTimestamp(fromTime);
        }
        if (isBroadcast) {
            // Its type is in another package in 4.9 than in 5.x, so it must not be named here.
            consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
        }
        if (isSharedByBroker) {
            letBrokerShare(consumer);
        }
        consumer.setMaxReconsumeTimes(maxReconsume);
        consumer.setPollNameServerInterval(pollNamesrvMs);
    }

    void subscribe(DefaultMQPushConsumer consumer, String topic) throws MQClientException {
        if (sql == null) {
            consumer.subscribe(topic, tags);
        } else {
            consumer.subscribe(topic, MessageSelector.bySql(sql));
        }
    }

    private static void letBrokerShare(DefaultMQPushConsumer consumer) {
        try {
            DefaultMQPushConsumer.class.getMethod("setClientRebalance", boolean.class).invoke(consumer, false);
            DefaultMQPushConsumer.class.getMethod("setPopInvisibleTime", long.class).invoke(consumer, POP_INVISIBLE_MS);
            // What fails is popped again after 10 s at least, and the client has no setting for that.
            Field delays = DefaultMQPushConsumerImpl.class.getDeclaredField("popDelayLevel");
            delays.setAccessible(true);
            Arrays.fill((int[]) delays.get(consumer.getDefaultMQPushConsumerImpl()), POP_RETRY_SECONDS);
        } catch (ReflectiveOperationException error) {
            throw new IllegalArgumentException("--broker-shares needs a client of 5.x: " + error, error);
        }
    }
}
