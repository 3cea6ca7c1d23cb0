package first;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Collections;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Sends one message and receives it. The one argument is the proxy's address; default localhost:8081. */
public final class FirstProgram {
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();
    private static final String TOPIC = "FirstTopic";
    private static final long WAIT_S_MAX = 60;

    public static void main(String[] arguments) throws Exception {
        String endpoints = arguments.length > 0 ? arguments[0] : "localhost:8081";
        ClientConfiguration configuration = ClientConfiguration.newBuilder().setEndpoints(endpoints).enableSsl(false).build();
        send(configuration, "hello, queue");
        if (!receive(configuration)) {
            System.err.println("nothing received within " + WAIT_S_MAX + " s");
            System.exit(1);
        }
    }

    private static void send(ClientConfiguration configuration, String text) throws Exception {
        try (Producer producer = PROVIDER.newProducerBuilder().setClientConfiguration(configuration).setTopics(TOPIC).build()) {
            Message message = PROVIDER.newMessageBuilder().setTopic(TOPIC).setBody(text.getBytes(UTF_8)).build();
            System.out.printf("sent: %s %s%n", TOPIC, producer.send(message).getMessageId());
        }
    }

    /** Prints what arrives; true as soon as something has. */
    private static boolean receive(ClientConfiguration configuration) throws Exception {
        CountDownLatch received = new CountDownLatch(1);
        try (PushConsumer consumer = PROVIDER.newPushConsumerBuilder()
            .setClientConfiguration(configuration)
            .setConsumerGroup("first-grpc-consumers")
            .setSubscriptionExpressions(Collections.singletonMap(TOPIC, FilterExpression.SUB_ALL))
            .setMessageListener(message -> {
                System.out.println("received: " + UTF_8.decode(message.getBody()));
                received.countDown();
                return ConsumeResult.SUCCESS;
            })
            .build()) {
            return received.await(WAIT_S_MAX, TimeUnit.SECONDS);
        }
    }

    private FirstProgram() {
    }
}
