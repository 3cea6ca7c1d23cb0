package apogeemq.interop.codec;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import com.alibaba.fastjson2.JSONWriter;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * Lets Apache's own codec, request signing and SQL92 filter answer questions: one JSON object a line on stdin, one answer a line on
 * stdout, in the same order. It judges nothing. Ends at the end of stdin; an unknown question ends it with a stack trace.
 */
public final class CodecDriver {
    private CodecDriver() {
    }

    public static void main(String[] words) throws Exception {
        // Whatever else prints to stdout must not come between the answers.
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        System.setOut(System.err);
        answerAll(new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)), answers);
        answers.flush();
        // The client's libraries leave threads behind that are not daemons.
        Runtime.getRuntime().halt(0);
    }

    private static void answerAll(BufferedReader questions, PrintStream answers) throws IOException, ReflectiveOperationException {
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            answers.println(JSON.toJSONString(answer(JSON.parseObject(line)), JSONWriter.Feature.WriteNulls));
        }
    }

    private static JSONObject answer(JSONObject question) throws ReflectiveOperationException {
        switch (question.getString("do")) {
            case "encode":
                return Headers.encode(question);
            case "decode":
                return Headers.decode(question);
            case "sign":
                return Signatures.sign(question);
            case "match":
                return Filters.match(question);
            default:
                throw new IllegalArgumentException("unknown question " + question);
        }
    }
}
