"""The bytes that the tests of links move: different for every link, direction and repeat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CANARY", "GUARD_BYTES", "difference", "known_bytes"]

Bytes = NDArray[np.uint8]

CANARY = 0xA5
"""What a destination holds before the message arrives: bytes that never came still have this value."""
GUARD_BYTES = 64
"""Behind a checked message, which must keep their canary."""


def known_bytes(sender: int, receiver: int, repeat: int, byte_count: int) -> Bytes:
    """The message of a link, direction and repeat: the 32-bit word i, its lowest byte first, is mix(i xor mix(key)).

    The key numbers sender, receiver (below 16384) and repeat (below 16). mix is the one-to-one finalizer of MurmurHash3, so
    that no two words of a message are the same and neither are two messages.
    """
    key = np.array([(sender << 18 | receiver << 4 | repeat) & 0xFFFFFFFF], np.uint32)
    words = _mix(np.arange((byte_count + 3) // 4, dtype=np.uint32) ^ _mix(key))
    return words.astype("<u4", copy=False).view(np.uint8)[:byte_count]


def _mix(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    words = words ^ (words >> np.uint32(16))
    words *= np.uint32(0x85EBCA6B)
    words ^= words >> np.uint32(13)
    words *= np.uint32(0xC2B2AE35)
    words ^= words >> np.uint32(16)
    return words


def difference(found: Bytes, expected: Bytes) -> str:
    """In words how `found` differs from the message that was expected; empty if it does not.

    `found` may be longer: what follows the message must still be canaries.
    """
    count = expected.size
    wrong = np.flatnonzero(found[:count] != expected)
    if wrong.size:
        first = int(wrong[0])
        never = int(np.count_nonzero(found[:count][wrong] == CANARY))
        arrived = "; they never arrived" if never == wrong.size else ""
        return (
            f"{wrong.size} of {count} bytes are wrong, the first at {first}: "
            f"expected 0x{int(expected[first]):02x}, found 0x{int(found[first]):02x}{arrived}"
        )
    behind = np.flatnonzero(found[count:] != CANARY)
    return f"{behind.size} bytes behind the message were overwritten" if behind.size else ""
