package apogeemq.interop.codec;

import com.alibaba.fastjson2.JSONObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.exception.RemotingCommandException;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/**
 * A header's fields as texts to and from a frame, by Apache's codec. With "fast", by the way its clients go (the encoder of the
 * channel, the hand-written decoders of some headers), else by reflection over fields.
 */
final class Headers {
    private static final String PACKAGE = "org.apache.rocketmq.remoting.protocol.header.";
    private static final String[] PLACES = {PACKAGE, PACKAGE + "namesrv."};
    private static final int LENGTH_SIZE_BYTES = 4;

    private Headers() {
    }

    /** {class, fields, code, serialize, fast} → {frame} in Base64, with its length. A field that the class lacks is an error. */
    static JSONObject encode(JSONObject question) throws ReflectiveOperationException {
        Class<? extends CommandCustomHeader> type = headerClass(question.getString("class"));
        CommandCustomHeader header = type.getDeclaredConstructor().newInstance();
        JSONObject texts = question.getJSONObject("fields");
        List<Field> fields = fieldsOf(type);
        for (String name : texts.keySet()) {
            Field field = fields.stream().filter(each -> each.getName().equals(name)).findFirst()
                .orElseThrow(() -> new NoSuchFieldException(type + " has no field " + name));
            field.set(header, parse(field.getType(), texts.getString(name)));
        }
        RemotingCommand command = RemotingCommand.createRequestCommand(question.getIntValue("code"), header);
        command.setSerializeTypeCurrentRPC(SerializeType.valueOf(question.getString("serialize")));
        return JSONObject.of("frame", Base64.getEncoder().encodeToString(frame(command, question.getBooleanValue("fast"))));
    }

    /** {class, frame, fast} → {code, fields}, the frame with its length; or {refused}. */
    static JSONObject decode(JSONObject question) throws ReflectiveOperationException {
        byte[] frame = Base64.getDecoder().decode(question.getString("frame"));
        Class<? extends CommandCustomHeader> type = headerClass(question.getString("class"));
        try {
            RemotingCommand command =
                RemotingCommand.decode(ByteBuffer.wrap(frame, LENGTH_SIZE_BYTES, frame.length - LENGTH_SIZE_BYTES).slice());
            CommandCustomHeader header = command.decodeCommandCustomHeaderDirectly(type, question.getBooleanValue("fast"));
            JSONObject texts = new JSONObject();
            for (Field field : fieldsOf(type)) {
                Object value = field.get(header);
                texts.put(field.getName(), value instanceof Enum ? ((Enum<?>) value).name() : value == null ? null : value.toString());
            }
            return JSONObject.of("code", command.getCode(), "fields", texts);
        } catch (RemotingCommandException refused) {
            return JSONObject.of("refused", refused.toString());
        }
    }

    private static byte[] frame(RemotingCommand command, boolean fast) {
        if (fast) {
            ByteBuf buffer = Unpooled.buffer();
            command.fastEncodeHeader(buffer);
            return ByteBufUtil.getBytes(buffer);
        }
        ByteBuffer buffer = command.encode();
        byte[] frame = new byte[buffer.remaining()];
        buffer.get(frame);
        return frame;
    }

    private static Class<? extends CommandCustomHeader> headerClass(String name) throws ClassNotFoundException {
        for (String place : PLACES) {
            try {
                return Class.forName(place + name).asSubclass(CommandCustomHeader.class);
            } catch (ClassNotFoundException elsewhere) {
                continue;
            }
        }
        throw new ClassNotFoundException(name);
    }

    private static List<Field> fieldsOf(Class<?> type) {
        List<Field> fields = new ArrayList<>();
        for (Class<?> at = type; at != Object.class; at = at.getSuperclass()) {
            for (Field field : at.getDeclaredFields()) {
                if (!Modifier.isStatic(field.getModifiers())) {
                    field.setAccessible(true);
                    fields.add(field);
                }
            }
        }
        return fields;
    }

    private static Object parse(Class<?> type, String text) throws ReflectiveOperationException {
        if (type == int.class || type == Integer.class) {
            return Integer.valueOf(text);
        }
        if (type == long.class || type == Long.class) {
            return Long.valueOf(text);
        }
        if (type == boolean.class || type == Boolean.class) {
            return Boolean.valueOf(text);
        }
        if (type.isEnum()) {
            return type.getMethod("valueOf", String.class).invoke(null, text);
        }
        return type.cast(text);
    }
}
