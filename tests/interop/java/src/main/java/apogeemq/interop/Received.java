package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.common.message.MessageExt;

/** The {@code received} line of one delivered message, whatever kind of consumer it came to. */
final class Received {
    private Received() {
    }

    /** What a message's body starts with. */
    static String key(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8).split(" ", 2)[0];
    }

    static Line line(MessageExt message, String verdict) {
        // A client of 4.9 does not name the broker of a message that it was told to consume directly.
        String broker = message.getBrokerName() == null ? "" : message.getBrokerName();
        return Line.of("received", key(message)).and("key", message.getKeys()).and("tags", message.getTags()).and("topic", message.getTopic())
            .and("sizeBytes", message.getBody().length).and("msgId", message.getMsgId()).and("broker", broker)
            .and("queueId", message.getQueueId()).and("queueOffset", message.getQueueOffset())
            .and("reconsumeTimes", message.getReconsumeTimes()).and("bornMs", message.getBornTimestamp())
            .and("storeMs", message.getStoreTimestamp()).and("receivedMs", System.currentTimeMillis()).and("verdict", verdict);
    }
}
