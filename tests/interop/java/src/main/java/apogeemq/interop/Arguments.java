package apogeemq.interop;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** A command word followed by {@code --name value} pairs and bare {@code --flag} words; a name that nobody asks for is refused. */
final class Arguments {
    private final String command;
    private final Map<String, String> values = new HashMap<>();
    private final Set<String> unread = new HashSet<>();

    private Arguments(String command) {
        this.command = command;
    }

    static Arguments parse(String[] words) {
        if (words.length == 0) {
            throw new IllegalArgumentException("no command given");
        }
        Arguments arguments = new Arguments(words[0]);
        for (int i = 1; i < words.length; i++) {
            if (!words[i].startsWith("--")) {
                throw new IllegalArgumentException("expected an option, got " + words[i]);
            }
            boolean isFlag = i + 1 == words.length || words[i + 1].startsWith("--");
            arguments.values.put(words[i].substring(2), isFlag ? "true" : words[++i]);
        }
        arguments.unread.addAll(arguments.values.keySet());
        return arguments;
    }

    String command() {
        return command;
    }

    String required(String name) {
        String value = text(name, null);
        if (value == null) {
            throw new IllegalArgumentException(command + " needs --" + name);
        }
        return value;
    }

    String text(String name, String fallback) {
        unread.remove(name);
        return values.getOrDefault(name, fallback);
    }

    int integer(String name, int fallback) {
        return Math.toIntExact(wide(name, fallback));
    }

    long wide(String name, long fallback) {
        return Long.parseLong(text(name, Long.toString(fallback)));
    }

    boolean flag(String name) {
        return Boolean.parseBoolean(text(name, "false"));
    }

    /** Call after every option was read. */
    void refuseUnknown() {
        if (!unread.isEmpty()) {
            throw new IllegalArgumentException(command + " does not know " + unread);
        }
    }
}
