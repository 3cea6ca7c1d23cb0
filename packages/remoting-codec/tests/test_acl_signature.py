"""ACL signatures against HMAC-SHA1 as RFC 2104 defines it, over content put together by hand."""

import base64
import hashlib

import pytest
from apogeemq.remoting_codec.acl_signature import is_signed_by, sign
from apogeemq.remoting_codec.codes import VERSION

SECRET = "12345678"


def twin(secret: str, content: bytes) -> str:
    """HMAC-SHA1 written out: the key padded to 64 bytes, the inner and the outer hash."""
    key = secret.encode()
    key = (hashlib.sha1(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key) + content).digest()
    return base64.b64encode(hashlib.sha1(bytes(byte ^ 0x5C for byte in key) + inner).digest()).decode()


@pytest.mark.parametrize(
    ("ext_fields", "body", "content"),
    [
        ({"AccessKey": "rocketmq2"}, b"", b"rocketmq2"),
        ({"topic": "T", "AccessKey": "K", "queueId": "3"}, b"", b"K3T"),
        ({"b": "T", "a": "G", "AccessKey": "K", "n": "broker"}, b"\x00body\xff", b"KGTbroker\x00body\xff"),
        ({"AccessKey": "K", "SecurityToken": "S", "Zone": "z", "_z": "u"}, b"", b"KSzu"),
        ({"AccessKey": "K", "Signature": "old", "x": "主题"}, b"", "K主题".encode()),
        ({"AccessKey": "K"} | {"\uffee": "later", "\U00010400": "earlier"}, b"", b"Kearlierlater"),
    ],
    ids=["one", "sorted", "body", "capitals-first", "signature-left-out", "utf-16-order"],
)
def test_signature_is_over_sorted_values_and_body(ext_fields: dict[str, str], body: bytes, content: bytes) -> None:
    """Values in the order of their keys, capitals before small letters, then the body."""
    assert sign(ext_fields, body, SECRET) == twin(SECRET, content)


def test_long_secret_is_hashed_first() -> None:
    """A secret of more than a block of SHA-1 works as RFC 2104 says."""
    assert sign({"AccessKey": "K"}, b"", "s" * 100) == twin("s" * 100, b"K")


def test_known_signature() -> None:
    """The check value of HMAC-SHA1: RFC 2202, test case 2."""
    expected = base64.b64encode(bytes.fromhex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")).decode()
    assert sign({"AccessKey": ""}, b"what do ya want for nothing?", "Jefe") == expected


def test_own_signature_is_accepted() -> None:
    """What was signed is accepted with the same secret only, and only unchanged."""
    fields = {"AccessKey": "K", "topic": "T"}
    signed = fields | {"Signature": sign(fields, b"body", SECRET)}
    assert is_signed_by(signed, b"body", SECRET, VERSION)
    assert not is_signed_by(signed, b"body", "87654321", VERSION)
    assert not is_signed_by(signed, b"bodY", SECRET, VERSION)
    assert not is_signed_by(signed | {"topic": "U"}, b"body", SECRET, VERSION)
    assert not is_signed_by(signed | {"more": "1"}, b"body", SECRET, VERSION)


def test_request_without_signature_is_refused() -> None:
    """No ext fields, no signature, or one that is no ASCII text."""
    assert not is_signed_by(None, b"", SECRET, VERSION)
    assert not is_signed_by({"AccessKey": "K"}, b"", SECRET, VERSION)
    assert not is_signed_by({"AccessKey": "K", "Signature": "ü\ud800"}, b"", SECRET, VERSION)


@pytest.mark.parametrize(("client_version", "expected"), [(399, True), (401, False)])
def test_old_clients_add_the_query_mark_after_signing(client_version: int, expected: bool) -> None:
    """`_UNIQUE_KEY_QUERY` beside a signature that does not cover it is right for clients up to 4.9.3 only."""
    fields = {"AccessKey": "K", "key": "id"}
    late = fields | {"Signature": sign(fields, b"", SECRET), "_UNIQUE_KEY_QUERY": "true"}
    assert is_signed_by(late, b"", SECRET, client_version) is expected
