package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/**
 * The same as the Remoting driver's {@code steady}: several applications with a client each, which keeps its defaults; {@code --producers N}
 * send to {@code --topic}, {@code --consumers N} push-consume it, each as a group of its own. It ends when it is asked to stop.
 */
final class GrpcSteady {
    private final ClientServiceProvider provider = ClientServiceProvider.loadService();
    private final ClientConfiguration configuration;
    private final String topic;
    private final String prefix;
    private final int producers;
    private final int consumers;
    private final long intervalMs;
    private final List<Thread> senders = new ArrayList<>();
    private final List<PushConsumer> receivers = new ArrayList<>();

    GrpcSteady(Arguments arguments) {
        configuration = ClientConfiguration.newBuilder().setEndpoints(arguments.required("endpoints")).enableSsl(false).build();
        topic = arguments.required("topic");
        prefix = arguments.required("prefix");
        producers = arguments.integer("producers", 1);
        consumers = arguments.integer("consumers", 0);
        intervalMs = arguments.wide("interval-ms", 50);
        arguments.refuseUnknown();
    }

    int run() throws ClientException, InterruptedException {
        Stop stop = GrpcDriver.listen();
        for (int number = 0; number < producers; number++) {
            produce(prefix + "-p" + number, stop);
        }
        for (int number = 0; number < consumers; number++) {
            receivers.add(consumer(prefix + "-c" + number));
        }
        GrpcDriver.reportStarted("steady");
        while (!stop.await(1000)) {
            // Nothing to do meanwhile.
        }
        for (Thread sender : senders) {
            sender.join();
        }
        return GrpcDriver.EXIT_DONE;
    }

    private void produce(String name, Stop stop) throws ClientException {
        Producer producer = provider.newProducerBuilder().setClientConfiguration(configuration).setTopics(topic).build();
        Thread sender = new Thread(new SteadySender(name, intervalMs, stop, key -> producer.send(provider.newMessageBuilder().setTopic(topic)
            .setKeys(key).setBody(key.getBytes(StandardCharsets.UTF_8)).build())), name);
        senders.add(sender);
        sender.start();
    }

    private PushConsumer consumer(String name) throws ClientException {
        return provider.newPushConsumerBuilder().setClientConfiguration(configuration).setConsumerGroup("group-" + name)
            .setSubscriptionExpressions(Collections.singletonMap(topic, FilterExpression.SUB_ALL))
            .setMessageListener(message -> report(message, name)).build();
    }

    private static ConsumeResult report(MessageView message, String name) {
        Line.of("got", StandardCharsets.UTF_8.decode(message.getBody().duplicate())).and("client", name)
            .and("at_ms", System.currentTimeMillis()).print();
        return ConsumeResult.SUCCESS;
    }
}
