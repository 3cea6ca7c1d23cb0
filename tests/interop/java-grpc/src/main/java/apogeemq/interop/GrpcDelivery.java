package apogeemq.interop;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import org.apache.rocketmq.client.apis.message.MessageView;

/** One message that a consumer got. Its key is the body's first word. */
final class GrpcDelivery {
    private final MessageView message;
    private final byte[] body;

    GrpcDelivery(MessageView message) {
        this.message = message;
        body = new byte[message.getBody().remaining()];
        message.getBody().duplicate().get(body);
    }

    String key() {
        return new String(body, StandardCharsets.ISO_8859_1).split(" ", 2)[0];
    }

    void reportReceived() {
        Line.of("received", key()).and("msg_id", message.getMessageId()).and("topic", message.getTopic()).and("keys", message.getKeys())
            .and("tag", message.getTag().orElse(null)).and("properties", message.getProperties()).and("size_bytes", body.length)
            .and("sha256", sha256()).and("attempt", message.getDeliveryAttempt()).and("at_ms", System.currentTimeMillis()).print();
    }

    void reportSettled() {
        Line.of("settled", key()).and("msg_id", message.getMessageId()).and("at_ms", System.currentTimeMillis()).print();
    }

    void reportSettleFailed(Exception error) {
        Line.of("settle_failed", key()).and("msg_id", message.getMessageId()).and("error", error)
            .and("at_ms", System.currentTimeMillis()).print();
    }

    private String sha256() {
        try {
            StringBuilder hex = new StringBuilder();
            for (byte octet : MessageDigest.getInstance("SHA-256").digest(body)) {
                hex.append(String.format("%02x", octet));
            }
            return hex.toString();
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException("every Java has SHA-256", error);
        }
    }
}
