package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/**
 * Sends messages that wait for their time, and takes some back. {@code --after} has a number for each, with commas between; what it means
 * says {@code --by}: {@code level} (the delay level), {@code sec}, {@code ms} (a delay), {@code at} (a delay in ms, sent as a time of delivery).
 * All but the level need a client of 5.x. Keys are {@code prefix-0} and so on. {@code --recall} has the numbers of those that are taken back
 * at once (5.4 and later), {@code --handles} has handles of others, to be taken back without sending any.
 *
 * <p>Lines: {@code delayed} (key, and when it was sent) or {@code undelayed} (key, code and error); {@code recalled} (handle and the broker's
 * message id) or {@code unrecalled} (handle, code and error).
 */
final class Delay {
    private final String topic;
    private final String prefix;
    private final String by;
    private final String[] after;
    private final String recalls;
    private final String[] handles;
    private final DefaultMQProducer producer;

    Delay(Arguments arguments) {
        topic = arguments.required("topic");
        prefix = arguments.text("prefix", "delayed");
        by = arguments.text("by", "level");
        after = split(arguments.text("after", ""));
        recalls = "," + arguments.text("recall", "") + ",";
        handles = split(arguments.text("handles", ""));
        producer = ProducerOptions.producer(arguments, "delayer");
        arguments.refuseUnknown();
    }

    int run() throws Exception {
        producer.start();
        Line.of("started", "delay").print();
        try {
            for (int number = 0; number < after.length; number++) {
                send(number);
            }
            for (String handle : handles) {
                recall(handle);
            }
        } finally {
            producer.shutdown();
        }
        return Driver.EXIT_DONE;
    }

    private void send(int number) throws Exception {
        String key = prefix + "-" + number;
        Message message = new Message(topic, "", key, key.getBytes(StandardCharsets.UTF_8));
        long sentMs = System.currentTimeMillis();
        setTime(message, Long.parseLong(after[number]), sentMs);
        String handle;
        try {
            SendResult result = producer.send(message);
            handle = by.equals("level") ? null : (String) SendResult.class.getMethod("getRecallHandle").invoke(result);
            Line.of("delayed", key).and("msgId", result.getMsgId()).and("status", result.getSendStatus()).and("sentMs", sentMs)
                .and("handle", handle).print();
        } catch (MQBrokerException refused) {
            Line.of("undelayed", key).and("code", refused.getResponseCode()).and("error", refused.getErrorMessage()).print();
            return;
        }
        if (recalls.contains("," + number + ",")) {
            recall(handle);
        }
    }

    private void setTime(Message message, long value, long nowMs) throws Exception {
        switch (by) {
            case "level":
                message.setDelayTimeLevel((int) value);
                break;
            case "sec":
                ProducerOptions.call(Message.class, message, "setDelayTimeSec", long.class, value);
                break;
            case "ms":
                ProducerOptions.call(Message.class, message, "setDelayTimeMs", long.class, value);
                break;
            case "at":
                ProducerOptions.call(Message.class, message, "setDeliverTimeMs", long.class, nowMs + value);
                break;
            default:
                throw new IllegalArgumentException("--by is level, sec, ms or at, not " + by);
        }
    }

    private void recall(String handle) throws Exception {
        try {
            Object id = DefaultMQProducer.class.getMethod("recallMessage", String.class, String.class).invoke(producer, topic, handle);
            Line.of("recalled", handle).and("msgId", id).print();
        } catch (java.lang.reflect.InvocationTargetException failed) {
            Throwable cause = failed.getCause();
            if (!(cause instanceof MQBrokerException)) {
                throw failed;
            }
            MQBrokerException refused = (MQBrokerException) cause;
            Line.of("unrecalled", handle).and("code", refused.getResponseCode()).and("error", refused.getErrorMessage()).print();
        }
    }

    private static String[] split(String text) {
        return text.isEmpty() ? new String[0] : text.split(",");
    }
}
