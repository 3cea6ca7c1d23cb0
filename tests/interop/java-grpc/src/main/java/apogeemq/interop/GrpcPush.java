package apogeemq.interop;

import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;

/**
 * Takes what the client hands it until it is asked to stop; with {@code --fail-first N} it refuses the first N deliveries of each message.
 */
final class GrpcPush {
    private final int failFirst;
    private final PushConsumer consumer;

    GrpcPush(Arguments arguments) throws ClientException {
        failFirst = arguments.integer("fail-first", 0);
        consumer = ClientServiceProvider.loadService().newPushConsumerBuilder()
            .setClientConfiguration(GrpcDriver.configuration(arguments)).setConsumerGroup(arguments.required("group"))
            .setSubscriptionExpressions(GrpcDriver.subscription(arguments)).setMessageListener(this::consume)
            .setConsumptionThreadCount(arguments.integer("threads", 2)).build();
        arguments.refuseUnknown();
    }

    int run() throws InterruptedException {
        Stop stop = GrpcDriver.listen();
        GrpcDriver.reportStarted("push");
        while (!stop.await(1000)) {
            // Nothing to do meanwhile.
        }
        GrpcDriver.close(consumer);
        return GrpcDriver.EXIT_DONE;
    }

    private ConsumeResult consume(MessageView message) {
        GrpcDelivery delivery = new GrpcDelivery(message);
        delivery.reportReceived();
        if (message.getDeliveryAttempt() <= failFirst) {
            return ConsumeResult.FAILURE;
        }
        // The client acknowledges after this and tells nobody; it tries for as long as it runs.
        delivery.reportSettled();
        return ConsumeResult.SUCCESS;
    }
}
