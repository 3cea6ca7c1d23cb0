package apogeemq.interop;

import java.util.concurrent.TimeUnit;

/**
 * An application that sends one message after the other until it is asked to stop, and goes on to the next one whatever became of the last.
 * Lines: {@code acked} and {@code failed}, with the key {@code name-number}, when the call was over, and how long it took.
 */
final class SteadySender implements Runnable {
    private final String name;
    private final long intervalMs;
    private final Stop stop;
    private final Sending sending;

    /** Sends a message with this key and body; returns when it is acknowledged. */
    interface Sending {
        void send(String key) throws Exception;
    }

    SteadySender(String name, long intervalMs, Stop stop, Sending sending) {
        this.name = name;
        this.intervalMs = intervalMs;
        this.stop = stop;
        this.sending = sending;
    }

    @Override
    public void run() {
        try {
            for (int number = 0; !stop.await(intervalMs); number++) {
                send(name + "-" + number);
            }
        } catch (InterruptedException error) {
            throw new IllegalStateException("a sender thread is never interrupted", error);
        }
    }

    private void send(String key) throws InterruptedException {
        long begunNanos = System.nanoTime();
        try {
            sending.send(key);
            line("acked", key, begunNanos).print();
        } catch (InterruptedException error) {
            throw error;
        } catch (Exception error) {
            line("failed", key, begunNanos).and("error", describe(error)).print();
        }
    }

    /** The kinds of the error and its causes, and what the first cause says in its first line. */
    private static String describe(Throwable error) {
        StringBuilder kinds = new StringBuilder(error.getClass().getSimpleName());
        Throwable cause = error;
        while (cause.getCause() != null) {
            cause = cause.getCause();
            kinds.append(" by ").append(cause.getClass().getSimpleName());
        }
        return kinds + ": " + String.valueOf(cause.getMessage()).split("\n", 2)[0];
    }

    private Line line(String verdict, String key, long begunNanos) {
        return Line.of(verdict, key).and("client", name).and("at_ms", System.currentTimeMillis())
            .and("took_ms", TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begunNanos));
    }
}
