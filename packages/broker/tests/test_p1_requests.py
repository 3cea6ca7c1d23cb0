"""What brokers of Apache serve to ordinary clients (priority P1), and this one does or does not."""

import tomllib
from pathlib import Path

from apogeemq.remoting_codec.codes import ResponseCode, request_code_name

from packages.broker.tests.world import World

FILE = Path(__file__).parent / "p1_requests.toml"


def requests() -> dict[int, dict[str, str]]:
    """By code, as the file has them."""
    return {request["code"]: request for request in tomllib.loads(FILE.read_text(encoding="utf-8"))["request"]}


def test_names_and_numbers_belong_together() -> None:
    """As the codec has them."""
    assert {code: request["name"] for code, request in requests().items()} == {
        code: request_code_name(code) for code in requests()
    }


async def test_what_is_not_served() -> None:
    """Is refused with REQUEST_CODE_NOT_SUPPORTED in Apache's words, and the connection stays usable."""
    async with World() as world:
        client = world.client()
        missing = requests().keys() - world.broker.remoting.codes
        assert missing, "what brokers send is not served"
        for code in sorted(missing):
            reply = client.request(code)
            assert reply.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
            assert reply.remark == f" request type {code} not supported"
        assert client.channel.close_reason is None
