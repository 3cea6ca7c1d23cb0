package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Answers requests: to each message of the topic it sends the reply "re: " and the message's body, until "stop". Lines: {@code replied} (the
 * request's key, and how the broker took the reply) or {@code unreplied} (with the client's error).
 */
final class Reply {
    private final DefaultMQPushConsumer consumer;
    private final DefaultMQProducer producer;
    private final String topic;

    Reply(Arguments arguments) {
        topic = arguments.required("topic");
        producer = ProducerOptions.producer(arguments, "replier");
        consumer = new DefaultMQPushConsumer(arguments.required("group"));
        consumer.setNamesrvAddr(arguments.required("namesrv"));
        consumer.setInstanceName("replying");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPollNameServerInterval(1000);
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        Stop stop = Stop.listen(line -> {
            throw new IllegalArgumentException("stdin takes stop only, not " + line);
        });
        producer.start();
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) this::consume);
        consumer.start();
        Line.of("started", "reply").print();
        stop.await(Long.MAX_VALUE);
        consumer.shutdown();
        producer.shutdown();
        return Driver.EXIT_DONE;
    }

    private ConsumeConcurrentlyStatus consume(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
        for (MessageExt message : messages) {
            reply(message);
        }
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }

    private void reply(MessageExt request) {
        String key = Received.key(request);
        try {
            byte[] body = ("re: " + new String(request.getBody(), StandardCharsets.UTF_8)).getBytes(StandardCharsets.UTF_8);
            SendResult result = producer.send(MessageUtil.createReplyMessage(request, body), 10_000);
            Line.of("replied", key).and("status", result.getSendStatus()).print();
        } catch (Exception error) {
            Line.of("unreplied", key).and("error", error.toString()).print();
        }
    }
}
