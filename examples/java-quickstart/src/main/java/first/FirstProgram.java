package first;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

/** Sends one message and receives it. The one argument is the name server's address; default localhost:9876. */
public final class FirstProgram {
    private static final String TOPIC = "FirstTopic";
    private static final long WAIT_S_MAX = 60;

    public static void main(String[] arguments) throws Exception {
        String namesrv = arguments.length > 0 ? arguments[0] : "localhost:9876";
        send(namesrv, "hello, queue");
        if (!receive(namesrv)) {
            System.err.println("nothing received within " + WAIT_S_MAX + " s");
            System.exit(1);
        }
    }

    private static void send(String namesrv, String text) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("first-producers");
        producer.setNamesrvAddr(namesrv);
        producer.start();
        try {
            SendResult sent = producer.send(new Message(TOPIC, text.getBytes(UTF_8)));
            System.out.printf("sent: %s %s queue %d offset %d%n", TOPIC, sent.getMessageQueue().getBrokerName(),
                sent.getMessageQueue().getQueueId(), sent.getQueueOffset());
        } finally {
            producer.shutdown();
        }
    }

    /** Prints what arrives; true as soon as something has. */
    private static boolean receive(String namesrv) throws Exception {
        CountDownLatch received = new CountDownLatch(1);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("first-consumers");
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(TOPIC, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> System.out.println("received: " + new String(message.getBody(), UTF_8)));
            received.countDown();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        try {
            return received.await(WAIT_S_MAX, TimeUnit.SECONDS);
        } finally {
            consumer.shutdown();
        }
    }

    private FirstProgram() {
    }
}
