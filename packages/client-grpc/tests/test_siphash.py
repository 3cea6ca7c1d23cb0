"""SipHash-2-4 by the published vectors, and the way that a message group takes."""

import pytest
from apogeemq.client_grpc.core.siphash import hash_of_group, siphash24

# vectors_sip64 of the authors' reference: key 00 01 … 0F, input 00 01 … n-1 for n = 0, 1, …
PUBLISHED = """
    726fdb47dd0e0e31 74f839c593dc67fd 0d6c8009d9a94f5a 85676696d7fb7e2d cf2794e0277187b7 18765564cd99a68d
    cbc9466e58fee3ce ab0200f58b01d137 93f5f5799a932462 9e0082df0ba9e4b0 7a5dbbc594ddb9f3 f4b32f46226bada7
    751e8fbc860ee5fb 14ea5627c0843d90 f723ca908e7af2ee a129ca6149be45e5 3f2acc7f57c29bdb 699ae9f52cbe4794
    4bc1b3f0968dd39c bb6dc91da77961bd bed65cf21aa2ee98 d0f2cbb02e3b67c7 93536795e3a33e88 a80c038ccd5ccec8
"""


@pytest.mark.parametrize(("size", "expected"), list(enumerate(PUBLISHED.split())))
def test_the_published_vectors(size: int, expected: str) -> None:
    """Of every length from nothing to three words."""
    assert siphash24(bytes(range(size))) == int(expected, 16)


def test_another_key_is_another_hash() -> None:
    """Of the empty input under a key of zeros."""
    assert siphash24(b"", bytes(16)) == 0x1E924B9D737700D7


def test_a_groups_hash_is_signed() -> None:
    """As Java's long: 15 characters of one byte each, whose hash has the highest bit, and 12, whose has it not."""
    assert hash_of_group(bytes(range(15)).decode()) == -0x5ED6359EB641BA1B
    assert hash_of_group(bytes(range(12)).decode()) == 0x751E8FBC860EE5FB
