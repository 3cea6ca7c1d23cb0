package apogeemq.interop;

import java.util.Map;
import java.util.StringJoiner;

/** One JSON object, printed as one line of stdout. Values are strings, numbers, booleans, null, or iterables and maps of those. */
final class Line {
    private final StringJoiner fields = new StringJoiner(",", "{", "}");

    static Line of(String name, Object value) {
        return new Line().and(name, value);
    }

    Line and(String name, Object value) {
        fields.add(quote(name) + ":" + json(value));
        return this;
    }

    /** Whole lines only: many client threads print at once. */
    void print() {
        String line = fields + "\n";
        synchronized (System.out) {
            System.out.print(line);
            System.out.flush();
        }
    }

    private static String json(Object value) {
        if (value == null || value instanceof Number || value instanceof Boolean) {
            return String.valueOf(value);
        }
        if (value instanceof Iterable) {
            StringJoiner items = new StringJoiner(",", "[", "]");
            ((Iterable<?>) value).forEach(item -> items.add(json(item)));
            return items.toString();
        }
        if (value instanceof Map) {
            StringJoiner entries = new StringJoiner(",", "{", "}");
            ((Map<?, ?>) value).forEach((name, item) -> entries.add(quote(String.valueOf(name)) + ":" + json(item)));
            return entries.toString();
        }
        return quote(value.toString());
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                quoted.append('\\').append(letter);
            } else if (letter < ' ' || letter > '~') {
                quoted.append(String.format("\\u%04x", (int) letter));
            } else {
                quoted.append(letter);
            }
        }
        return quoted.append('"').toString();
    }
}
