package apogeemq.interop;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * The wish to end: "stop" or the end of stdin, or SIGTERM. Both let the work end in order (offsets are committed), and a driver
 * whose parent died ends by itself.
 */
final class Stop {
    private static final long HOOK_WAIT_SECONDS = 20;

    private final CountDownLatch asked = new CountDownLatch(1);

    /** Listens from now on; other lines of stdin go to {@code onLine}. */
    static Stop listen(Consumer<String> onLine) {
        Stop stop = new Stop();
        Thread reader = new Thread(() -> stop.read(onLine), "stdin");
        reader.setDaemon(true);
        reader.start();
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop.askAndWaitFor(main), "stop-hook"));
        return stop;
    }

    boolean asked() {
        return asked.getCount() == 0;
    }

    /** Returns whether the end was asked for within the time. */
    boolean await(long timeoutMs) throws InterruptedException {
        return asked.await(timeoutMs, TimeUnit.MILLISECONDS);
    }

    private void read(Consumer<String> onLine) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null && !line.equals("stop"); line = lines.readLine()) {
                onLine.accept(line);
            }
        } catch (IOException error) {
            System.err.println("stdin broke, stopping: " + error);
        } finally {
            asked.countDown();
        }
    }

    private void askAndWaitFor(Thread main) {
        asked.countDown();
        try {
            main.join(TimeUnit.SECONDS.toMillis(HOOK_WAIT_SECONDS));
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
