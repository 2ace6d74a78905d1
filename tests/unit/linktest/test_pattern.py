"""The bytes that are moved, and how differences are told."""

from __future__ import annotations

import itertools

import numpy as np

from paratrain.linktest.pattern import CANARY, GUARD_BYTES, difference, known_bytes

COUNT = 1 << 20 | 37


def mix(word: int) -> int:
    """The finalizer of MurmurHash3."""
    word = (word ^ word >> 16) * 0x85EBCA6B % 2**32
    word = (word ^ word >> 13) * 0xC2B2AE35 % 2**32
    return word ^ word >> 16


def plain(sender: int, receiver: int, repeat: int, count: int) -> bytes:
    key = mix(sender * 2**18 + receiver * 2**4 + repeat)
    return b"".join(mix(i ^ key).to_bytes(4, "little") for i in range(count // 4 + 1))[:count]


def test_every_byte_is_that_of_the_formula() -> None:
    for count in (0, 1, 2, 3, 4, 1001):
        assert known_bytes(5, 17, 2, count).tobytes() == plain(5, 17, 2, count)


def test_no_message_is_like_another_and_few_bytes_agree() -> None:
    messages = [known_bytes(a, b, repeat, 65_537) for a, b, repeat in itertools.product((0, 1, 1023), (0, 2), (0, 3))]
    for one, other in itertools.combinations(messages, 2):
        assert np.count_nonzero(one == other) < 0.01 * one.size


def test_a_message_that_is_shifted_is_wrong() -> None:
    message = known_bytes(0, 1, 0, COUNT)
    for shift in (1, 4, 512, 4096, 1 << 16):
        assert np.count_nonzero(message[shift:] == message[:-shift]) < 0.01 * COUNT


def test_differences_in_words() -> None:
    message = known_bytes(0, 1, 0, COUNT)
    arrived = np.full(COUNT + GUARD_BYTES, CANARY, np.uint8)
    assert f"of {COUNT} bytes are wrong, the first at 0" in difference(arrived, message)
    assert difference(arrived, message).endswith("they never arrived")
    arrived[:COUNT] = message
    assert difference(arrived, message) == ""
    arrived[COUNT - 1] ^= 0x10
    expected, found = int(message[-1]), int(arrived[COUNT - 1])
    assert difference(arrived, message) == (
        f"1 of {COUNT} bytes are wrong, the first at {COUNT - 1}: expected 0x{expected:02x}, found 0x{found:02x}"
    )
    arrived[COUNT - 1] ^= 0x10
    arrived[COUNT] = 0
    assert difference(arrived, message) == "1 bytes behind the message were overwritten"
