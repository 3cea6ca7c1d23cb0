"""ACL signatures: what Apache's client signs, we accept, and we sign the same."""

import base64
import random

import pytest
from apogeemq.remoting_codec.acl_signature import is_signed_by, sign
from apogeemq.remoting_codec.codes import VERSION

from tests.interop.java_codec import JavaCodec

pytestmark = pytest.mark.verify

REQUESTS = 1_000
NAMES = (
    *("topic", "Topic", "TOPIC", "queueId", "a", "A", "b", "B", "i", "ns", "bname", "_z", "Zone", "~", "0", "é", "主"),
    *("\uffee", "\U00010400", "_UNIQUE_KEY_QUERY", "SecurityTokenX", "AccessKeyX"),
)
LETTERS = 'aZ0 =&\x00\x01\n"\\é主\uffee\U0001f680'


def test_apache_and_we_sign_alike(apache_codec: JavaCodec) -> None:
    """Names with capitals and beyond ASCII, any values, with a token or none, with a body or none."""
    chance = random.Random(1)
    requests = [generated(chance) for _ in range(REQUESTS)]
    for request, answer in zip(requests, apache_codec.answers(requests), strict=True):
        fields = answer["fields"]
        assert isinstance(fields, dict)
        signed = {name: str(value) for name, value in fields.items()}
        body, secret = base64.b64decode(str(request["body"])), str(request["secretKey"])
        assert signed.items() >= {"AccessKey": request["accessKey"]}.items()
        assert sign(signed, body, secret) == signed["Signature"], request
        assert is_signed_by(signed, body, secret, VERSION), request
        assert not is_signed_by(signed, body + b"x", secret, VERSION), request


def generated(chance: random.Random) -> dict[str, object]:
    def text(size_max: int) -> str:
        return "".join(chance.choices(LETTERS, k=chance.randint(0, size_max)))

    return {
        "do": "sign",
        "code": chance.choice([10, 11, 34, 310, 200_050]),
        "accessKey": text(12) + "k",
        "secretKey": text(100) + "s",
        "securityToken": chance.choice([None, text(20) + "t"]),
        "fields": {name: text(30) for name in chance.sample(NAMES, chance.randint(0, len(NAMES)))},
        "body": base64.b64encode(chance.randbytes(chance.choice([0, 1, 1_000]))).decode(),
    }
