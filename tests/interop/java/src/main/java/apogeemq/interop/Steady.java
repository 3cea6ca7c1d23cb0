package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Several applications with a client each, which keeps its defaults: {@code --producers N} that send to {@code --topic} ({@link SteadySender}),
 * {@code --consumers N} that push-consume {@code --from}, each as a group of its own. What a client does every 30 s it counts from its start,
 * and they start {@code --stagger-ms} apart. {@code --poll-ms} sets how often producers ask for routes, alone. Lines: those of the senders, and {@code got} for a delivery, with the body as its key. It ends
 * when it is asked to stop.
 */
final class Steady {
    private final String namesrv;
    private final String topic;
    private final String from;
    private final String prefix;
    private final int producers;
    private final int consumers;
    private final long intervalMs;
    private final long staggerMs;
    private final int pollMs;
    private final List<Thread> senders = new ArrayList<>();

    Steady(Arguments arguments) {
        namesrv = arguments.required("namesrv");
        topic = arguments.required("topic");
        from = arguments.text("from", topic);
        prefix = arguments.required("prefix");
        producers = arguments.integer("producers", 1);
        consumers = arguments.integer("consumers", 0);
        intervalMs = arguments.wide("interval-ms", 50);
        staggerMs = arguments.wide("stagger-ms", 0);
        pollMs = arguments.integer("poll-ms", 0);
        arguments.refuseUnknown();
    }

    int run() throws MQClientException, InterruptedException {
        Stop stop = Stop.listen(line -> {
            throw new IllegalArgumentException("stdin takes stop, not " + line);
        });
        for (int number = 0; number < Math.max(producers, consumers); number++) {
            if (number > 0 && stop.await(staggerMs)) {
                break;
            }
            if (number < producers) {
                produce(prefix + "-p" + number, stop);
            }
            if (number < consumers) {
                consume(prefix + "-c" + number);
            }
        }
        Line.of("started", "steady").and("at_ms", System.currentTimeMillis()).print();
        while (!stop.await(1000)) {
            // Nothing to do meanwhile.
        }
        for (Thread sender : senders) {
            sender.join();
        }
        return Driver.EXIT_DONE;
    }

    private void produce(String name, Stop stop) throws MQClientException {
        DefaultMQProducer producer = new DefaultMQProducer("producers-" + prefix);
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName(name);
        if (pollMs > 0) {
            producer.setPollNameServerInterval(pollMs);
        }
        producer.start();
        Thread sender = new Thread(new SteadySender(name, intervalMs, stop, key -> {
            SendResult result = producer.send(new Message(topic, "", key, key.getBytes(StandardCharsets.UTF_8)));
            if (result.getSendStatus() != SendStatus.SEND_OK) {
                throw new IllegalStateException("stored, but " + result.getSendStatus());
            }
        }), name);
        senders.add(sender);
        sender.start();
    }

    private void consume(String name) throws MQClientException {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("group-" + name);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(name);
        consumer.subscribe(from, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                Line.of("got", new String(message.getBody(), StandardCharsets.UTF_8)).and("client", name)
                    .and("at_ms", System.currentTimeMillis()).print();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }
}
