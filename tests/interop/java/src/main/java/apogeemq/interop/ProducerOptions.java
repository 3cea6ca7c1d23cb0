package apogeemq.interop;

import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/**
 * How a producer is set up, whatever it sends:
 *
 * <pre>
 * --namespace NAME | --namespace-v2 NAME   names of topics and groups belong to it; version 2 needs a client of 5.x
 * --compress-over N                        bodies of more bytes are compressed (default: the client's, 4096)
 * --compress-type ZLIB | LZ4 | ZSTD        by which algorithm (default: ZLIB, the only one that clients of 4.9 know)
 * --max-body N                             larger ones the client refuses itself (default: the client's, 4 MiB)
 * --accumulate                             the client makes batches of single sends (5.x)
 * --trace                                  what is sent is told to the trace topic
 * --long-headers                           names of header fields are written out, as by clients before 3.4 and in other languages
 * --retries N, --timeout-ms N, --instance NAME
 * </pre>
 */
final class ProducerOptions {
    private ProducerOptions() {
    }

    static DefaultMQProducer producer(Arguments arguments, String defaultInstance) {
        System.setProperty("rocketmq.message.compressType", arguments.text("compress-type", "ZLIB"));
        if (arguments.flag("long-headers")) {
            System.setProperty("org.apache.rocketmq.client.sendSmartMsg", "false");
        }
        DefaultMQProducer producer = new DefaultMQProducer(arguments.required("group"), arguments.flag("trace"), null);
        producer.setNamesrvAddr(arguments.required("namesrv"));
        producer.setInstanceName(arguments.text("instance", defaultInstance));
        producer.setPollNameServerInterval(1000);
        producer.setSendMsgTimeout(arguments.integer("timeout-ms", 10_000));
        int retries = arguments.integer("retries", 2);
        producer.setRetryTimesWhenSendFailed(retries);
        producer.setRetryTimesWhenSendAsyncFailed(retries);
        producer.setCompressMsgBodyOverHowmuch(arguments.integer("compress-over", producer.getCompressMsgBodyOverHowmuch()));
        producer.setMaxMessageSize(arguments.integer("max-body", producer.getMaxMessageSize()));
        useNamespace(producer, arguments);
        if (arguments.flag("accumulate")) {
            call(DefaultMQProducer.class, producer, "setAutoBatch", boolean.class, true);
        }
        return producer;
    }

    /** Puts a client, whether it sends or receives, into the namespace of the command line. */
    static void useNamespace(ClientConfig client, Arguments arguments) {
        String namespace = arguments.text("namespace", null);
        if (namespace != null) {
            client.setNamespace(namespace);
        }
        String namespaceV2 = arguments.text("namespace-v2", null);
        if (namespaceV2 != null) {
            call(ClientConfig.class, client, "setNamespaceV2", String.class, namespaceV2);
        }
    }

    /** Calls what a client of 4.9, with which this is compiled too, does not have. */
    static void call(Class<?> type, Object target, String method, Class<?> parameter, Object value) {
        try {
            type.getMethod(method, parameter).invoke(target, value);
        } catch (ReflectiveOperationException error) {
            throw new IllegalArgumentException(method + " needs a client of 5.x: " + error, error);
        }
    }
}
