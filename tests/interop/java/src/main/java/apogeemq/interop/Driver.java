package apogeemq.interop;

/**
 * Runs the official Java Remoting client on command. Results are JSON objects on stdout, one a line, so that the caller can judge
 * them; the driver itself judges nothing.
 *
 * <p>Exit codes: 0 done, 1 an unexpected error (stack trace on stderr), 2 the deadline passed before the work was done, 64 bad arguments.
 */
public final class Driver {
    static final int EXIT_DONE = 0;
    static final int EXIT_FAILED = 1;
    static final int EXIT_DEADLINE = 2;
    static final int EXIT_USAGE = 64;

    private Driver() {
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
                return new Produce(arguments).run();
            case "consume":
                return new Consume(arguments).run();
            case "offsets":
                return Offsets.run(arguments);
            case "pull":
                return Pull.run(arguments);
            case "lite-pull":
                return new LitePull(arguments).run();
            case "request":
                return new Request(arguments).run();
            case "reply":
                return new Reply(arguments).run();
            case "query":
                return Query.run(arguments);
            case "transact":
                return new Transact(arguments).run();
            case "delay":
                return new Delay(arguments).run();
            case "steady":
                return new Steady(arguments).run();
            default:
                throw new IllegalArgumentException("unknown command " + arguments.command()
                    + "; known: produce, consume, offsets, pull, lite-pull, request, reply, query, transact, delay, steady");
        }
    }
}
