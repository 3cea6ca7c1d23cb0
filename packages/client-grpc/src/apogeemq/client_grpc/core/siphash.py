"""SipHash-2-4: which queue a message group belongs to, as the API's official clients find it.

What must be the same in all clients, or one group's messages would take two ways: the hash, with the key 00 01 … 0F;
the group's UTF-8 bytes; the hash taken as a signed number; its remainder, never negative, by the number of writable
queues of masters in the route's order. Source: apache/rocketmq-clients PublishingLoadBalancer, Guava Hashing.sipHash24;
J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF".
"""

import functools
from typing import Final, TypeAlias

KEY: Final = bytes(range(16))
GROUPS_KEPT: Final = 4096
"""Groups whose hash is remembered: finding one costs some 10 µs."""

_MASK: Final = (1 << 64) - 1
_State: TypeAlias = tuple[int, int, int, int]


def siphash24(data: bytes, key: bytes = KEY) -> int:
    """The hash of `data`, 0 to 2^64 - 1. `key` has 16 bytes."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    state = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    whole = len(data) - len(data) % 8
    for start in range(0, whole, 8):
        state = _compressed(state, int.from_bytes(data[start : start + 8], "little"))
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    v0, v1, v2, v3 = _compressed(state, last)
    v0, v1, v2, v3 = _rounds((v0, v1, v2 ^ 0xFF, v3), 4)
    return v0 ^ v1 ^ v2 ^ v3


@functools.lru_cache(maxsize=GROUPS_KEPT)
def hash_of_group(message_group: str) -> int:
    """The hash of a message group as a signed number, -2^63 to 2^63 - 1."""
    unsigned = siphash24(message_group.encode())
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def _compressed(state: _State, word: int) -> _State:
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = _rounds((v0, v1, v2, v3 ^ word), 2)
    return v0 ^ word, v1, v2, v3


def _rounds(state: _State, count: int) -> _State:
    v0, v1, v2, v3 = state
    for _ in range(count):
        v0 = v0 + v1 & _MASK
        v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = v2 + v3 & _MASK
        v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
        v0 = v0 + v3 & _MASK
        v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
        v2 = v2 + v1 & _MASK
        v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _MASK
    return v0, v1, v2, v3
