package apogeemq.interop;

import java.io.Closeable;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Collections;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;

/**
 * Runs the official Java gRPC client on command. Results are JSON objects on stdout, one a line, so that the caller can judge
 * them; the driver itself judges nothing. The lines are those of the Python driver: tests/interop/grpc_events.py describes them.
 *
 * <p>Exit codes: 0 done, 1 an unexpected error (stack trace on stderr), 2 the deadline passed before the work was done, 64 bad arguments.
 */
public final class GrpcDriver {
    static final int EXIT_DONE = 0;
    static final int EXIT_FAILED = 1;
    static final int EXIT_DEADLINE = 2;
    static final int EXIT_USAGE = 64;
    private static final long REQUEST_TIMEOUT_SECONDS = 10;
    private static final long CLOSE_WAIT_SECONDS = 30;

    private GrpcDriver() {
    }

    /** Runs one sub-command and ends the process, since the client leaves threads behind that are not daemons. */
    public static void main(String[] words) {
        int exitCode;
        try {
            exitCode = run(Arguments.parse(words));
        } catch (IllegalArgumentException error) {
            System.err.println(error.getMessage());
            exitCode = EXIT_USAGE;
        } catch (Exception error) {
            error.printStackTrace();
            exitCode = EXIT_FAILED;
        }
        System.out.flush();
        // Not System.exit: the shutdown hook of the stop signal waits for this very end.
        Runtime.getRuntime().halt(exitCode);
    }

    private static int run(Arguments arguments) throws Exception {
        switch (arguments.command()) {
            case "produce":
                return new GrpcProduce(arguments).run();
            case "simple":
                return new GrpcSimple(arguments).run();
            case "push":
                return new GrpcPush(arguments).run();
            case "transact":
                return new GrpcTransact(arguments).run();
            case "steady":
                return new GrpcSteady(arguments).run();
            default:
                throw new IllegalArgumentException("unknown command " + arguments.command() + "; known: produce, simple, push, transact,"
                    + " steady");
        }
    }

    /** Without {@code --tls} the client speaks plain text, which it does only when told to. */
    static ClientConfiguration configuration(Arguments arguments) {
        return ClientConfiguration.newBuilder().setEndpoints(arguments.required("endpoints")).enableSsl(arguments.flag("tls"))
            .setRequestTimeout(Duration.ofSeconds(arguments.wide("request-timeout-s", REQUEST_TIMEOUT_SECONDS))).build();
    }

    static Map<String, FilterExpression> subscription(Arguments arguments) {
        return Collections.singletonMap(arguments.required("topic"), new FilterExpression(arguments.text("tags", "*")));
    }

    /** Listens for the wish to end, from now on. */
    static Stop listen() {
        return Stop.listen(line -> {
            throw new IllegalArgumentException("stdin takes stop, not " + line);
        });
    }

    /**
     * Closes a client, within bounds: one that lost its Telemetry stream less than a second before may open it anew while it closes, and
     * then waits for that stream's end for ever.
     */
    static void close(Closeable client) throws InterruptedException {
        Thread closer = new Thread(() -> {
            try {
                client.close();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }, "closer");
        closer.setDaemon(true);
        closer.start();
        closer.join(TimeUnit.SECONDS.toMillis(CLOSE_WAIT_SECONDS));
        if (closer.isAlive()) {
            System.err.println("the client did not close within " + CLOSE_WAIT_SECONDS + " s, going on without");
        }
    }

    static void reportStarted(String command) {
        Line.of("started", command).and("at_ms", System.currentTimeMillis()).print();
    }
}
