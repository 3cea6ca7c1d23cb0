"""etcd's values: ranges of keys."""

import pytest
from apogeemq.controller.core.etcd import end_of_prefix


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
)
def test_the_end_of_a_prefix_is_the_first_key_after_it(prefix: bytes, end: bytes) -> None:
    """etcd's own rule: the last byte that can be counted up is; without one there is no end."""
    assert end_of_prefix(prefix) == end
