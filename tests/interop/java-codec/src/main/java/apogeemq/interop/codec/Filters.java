package apogeemq.interop.codec;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.util.HashMap;
import java.util.Map;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;

/** Compiles SQL92 expressions and holds properties against them, with the errors taken as Apache's broker takes them. */
final class Filters {
    private Filters() {
    }

    /** {expression, properties: [{…}, …]} → {matched: [boolean, …]}, or {refused} when it does not compile. */
    static JSONObject match(JSONObject question) {
        Expression expression;
        try {
            expression = FilterFactory.INSTANCE.get("SQL92").compile(question.getString("expression"));
        } catch (Throwable refused) {
            return JSONObject.of("refused", refused.toString());
        }
        JSONArray matched = new JSONArray();
        JSONArray messages = question.getJSONArray("properties");
        for (int message = 0; message < messages.size(); message++) {
            matched.add(matches(expression, new Properties(messages.getJSONObject(message))));
        }
        return JSONObject.of("matched", matched);
    }

    private static boolean matches(Expression expression, Properties properties) {
        try {
            return Boolean.TRUE.equals(expression.evaluate(properties));
        } catch (Throwable error) {
            return false;
        }
    }

    /** The properties of one message. */
    private static final class Properties implements EvaluationContext {
        private final Map<String, Object> values = new HashMap<>();

        private Properties(JSONObject texts) {
            texts.keySet().forEach(name -> values.put(name, texts.getString(name)));
        }

        @Override
        public Object get(String name) {
            return values.get(name);
        }

        @Override
        public Map<String, Object> keyValues() {
            return new HashMap<>(values);
        }
    }
}
