package apogeemq.interop.codec;

import com.alibaba.fastjson2.JSONObject;
import java.util.Base64;
import java.util.HashMap;
import org.apache.rocketmq.acl.common.AclClientRPCHook;
import org.apache.rocketmq.acl.common.SessionCredentials;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** Signs requests as a client does that was given an access key. */
final class Signatures {
    private Signatures() {
    }

    /** {accessKey, secretKey, securityToken or null, fields, body in Base64} → {fields}: those of the signed request. */
    static JSONObject sign(JSONObject question) {
        RemotingCommand request = RemotingCommand.createRequestCommand(question.getIntValue("code"), null);
        HashMap<String, String> fields = new HashMap<>();
        JSONObject texts = question.getJSONObject("fields");
        texts.keySet().forEach(name -> fields.put(name, texts.getString(name)));
        request.setExtFields(fields);
        byte[] body = Base64.getDecoder().decode(question.getString("body"));
        request.setBody(body.length == 0 ? null : body);
        SessionCredentials credentials = new SessionCredentials(question.getString("accessKey"), question.getString("secretKey"));
        credentials.setSecurityToken(question.getString("securityToken"));
        new AclClientRPCHook(credentials).doBeforeRequest("127.0.0.1:10911", request);
        return JSONObject.of("fields", request.getExtFields());
    }
}
