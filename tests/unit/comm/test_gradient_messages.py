"""Gradients that are sent in 16 bits: how they are rounded, what is sent, and that they are summed in float32."""

from __future__ import annotations

import math
import struct
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from paratrain.comm import Communicator
from paratrain.comm.communicator import Array, Request
from paratrain.comm.exchange import FlatArrays
from paratrain.comm.gradient_messages import GradientMessages
from paratrain.comm.message_sharded import MessageSharded
from paratrain.comm.threads import ThreadCommunicator, run_threads
from paratrain.dtypes import dtype_named
from tests.unit.comm.exchanges import MESSAGES, SHARED, TWO_LEVELS, make_exchange, run_step

DTYPES = ("float16", "bfloat16")
# Fraction bits, the exponent of the smallest normal number, and the largest number.
FORMS = {"float16": (10, -14, 65504.0), "bfloat16": (7, -126, float(np.uint32(0x7F7F0000).view(np.float32)))}
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def rounded(value: float, dtype: str) -> float:
    """The nearest number of this dtype, the even one of two, by exact arithmetic."""
    if not math.isfinite(value) or value == 0:
        return value
    fraction_bits, least, largest = FORMS[dtype]
    exponent = max(math.frexp(value)[1] - 1, least)
    step = Fraction(2) ** (exponent - fraction_bits)
    found = float(round(Fraction(value) / step) * step)  # Python rounds halves to the even one
    return math.copysign(found if abs(found) <= largest else math.inf, value)


def sent(values: Array, dtype: str) -> Array:
    """What arrives when rank 1 sends `values` to rank 0, which adds them to zeros."""

    def rank(communicator: Communicator) -> Array:
        messages = GradientMessages(communicator, [(0, len(values))], values.dtype, dtype)
        total = np.full_like(values, -0.0)  # -0 + x has the sign of x
        if communicator.rank == 0:
            message = messages.ireceive(len(values), 1, 20)
            message_done(message.test)
            messages.add(message, total)
        else:
            message = messages.isend(values, 0, 20)
            message_done(message.test)
            messages.finish(message)
        return total

    return run_threads(2, rank)[0]


def message_done(test: object) -> None:
    while not test():  # type: ignore[operator]
        pass


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_number_is_rounded_to_the_nearest(dtype: str) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 40_000, dtype=np.uint32)  # more than one piece of work, every exponent
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 65504, 65519.99, 65520, 1e-45, 2.0**-25, 2.0**-24 * 1.5]
    ties = (np.arange(64, dtype=np.uint32) << 15) + np.uint32(0x3F800000)  # halfway between two bfloat16
    edges = np.array([0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 1], np.uint32)
    values = np.concatenate([a.view(np.float32) for a in (bits, ties, edges)] + [np.array(special, np.float32)])
    found = sent(values, dtype)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    for value, result in zip(
        values[::7].tolist() + special, found[::7].tolist() + found[-len(special) :].tolist(), strict=True
    ):
        if not math.isnan(value):
            assert struct.pack("d", result) == struct.pack("d", rounded(float(np.float32(value)), dtype)), value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_sums_of_numbers_that_fit_are_exact(kind: str, size: int, dtype: str) -> None:
    check_sums(kind, size, None, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TWO_LEVELS)
def test_between_nodes_too(kind: str, dtype: str) -> None:
    check_sums(kind, 5, [0, 0, 1, 1, 1], dtype)


def check_sums(kind: str, size: int, nodes: list[int] | None, dtype: str) -> None:
    """Whole numbers up to 136 in closed form; numbers of many magnitudes within the bound of the roundings, the same bits on
    all ranks and in two runs."""
    count = 3001

    def noise(rank: int) -> Array:
        rng = np.random.default_rng([rank, count])
        return (rng.standard_normal(count) * 10.0 ** rng.integers(-2, 3, count)).astype(np.float32)

    def rank(communicator: Communicator) -> tuple[Array, Array]:
        pattern = (np.arange(count) % 3 - 1).astype(np.float32)
        exchange = make_exchange(kind, communicator, count, 700, sent=dtype)
        exact = run_step(exchange, (communicator.rank + 1) * pattern)
        np.testing.assert_allclose(exact, (size + 1) / 2 * pattern, rtol=2e-7)
        exchange = make_exchange(kind, communicator, count, 700, sent=dtype)
        return exact, run_step(exchange, noise(communicator.rank))

    runs = [run_threads(size, rank, nodes) for _ in range(2)]
    for _, found in runs[0] + runs[1]:
        assert np.array_equal(found, runs[0][0][1])
    values = [noise(number).astype(np.float64) for number in range(size)]
    error = np.abs(runs[0][0][1] - sum(values) / size)
    bound = UNIT[dtype] * size * sum(np.abs(value) for value in values) / size
    assert np.all(error <= bound + 1e-6)
    assert size == 1 or np.any(error > 0.01 * UNIT[dtype] * np.abs(values[0]))  # they were rounded


def test_sums_are_made_in_float32() -> None:
    """1 and 2 ** -9 together are no bfloat16: the owner, who holds the 1, gets all of what the others send."""

    def rank(communicator: Communicator) -> Array:
        arrays = FlatArrays(np.zeros(64, np.float32), np.zeros(64, np.float32))
        exchange = MessageSharded(communicator, arrays, [(0, 64)], owner_count=1, gradient_dtype="bfloat16")
        return run_step(exchange, np.full(64, 1.0 if communicator.rank == 0 else 2.0**-9, np.float32))

    for result in run_threads(4, rank):
        assert np.array_equal(result, np.full(64, 1 + 3 * 2.0**-9, np.float32))


def test_what_is_too_large_for_float16_becomes_infinite() -> None:
    values = np.array([7e4, -7e4, 3e38, 1.0], np.float32)
    assert sent(values, "float16").tolist() == [np.inf, -np.inf, np.inf, 1.0]
    assert np.all(np.isfinite(sent(values, "bfloat16")))


@pytest.mark.parametrize(
    ("kind", "nodes", "sums", "spreads"),
    [
        ("tree", None, 3, 3),  # over n - 1 edges
        ("sharded", None, 3, 3),  # n ranks, each (n - 1) / n
        ("ring", None, 3, 3),
        ("shared sharded", None, 0, 0),
        ("two levels, sharded", [0, 0, 1, 1], 1, 1),
    ],
)
def test_bytes_that_a_step_sends(
    kind: str, nodes: list[int] | None, sums: int, spreads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the communicators of four ranks, as elements: gradients in their dtype, parameters in float32."""
    count, elements = 6400, {}
    sent_bytes: Counter[int] = Counter()
    isend = ThreadCommunicator.isend

    def counting(self: ThreadCommunicator, array: Array, destination: int, tag: int = 0) -> Request:
        if tag >= 16:  # of the exchange: even for gradients, odd for parameters
            sent_bytes[tag % 2] += array.nbytes
        return isend(self, array, destination, tag)

    monkeypatch.setattr(ThreadCommunicator, "isend", counting)
    for dtype in ("float32", *DTYPES):
        sent_bytes.clear()
        run_threads(
            4,
            lambda communicator, dtype=dtype: run_step(  # type: ignore[misc]
                make_exchange(kind, communicator, count, 1600, sent=dtype), np.ones(count, np.float32)
            ),
            nodes,
        )
        item_bytes = dtype_named(dtype).itemsize
        elements[dtype] = sent_bytes[0] // item_bytes, sent_bytes[1] // 4
        assert item_bytes == (4 if dtype == "float32" else 2)
    # Each of the two columns of two levels sends its half of the elements both ways.
    expected = (sums * count, spreads * count)
    assert set(elements.values()) == {expected}


def test_shared_memory_sends_nothing_and_so_has_no_such_option() -> None:
    def rank(communicator: Communicator) -> list[Array]:
        return [run_step(make_exchange(kind, communicator, 99, 40), np.full(99, 1 / 3, np.float32)) for kind in SHARED]

    for found in run_threads(2, rank):
        assert all(np.array_equal(result, np.full(99, np.float32(1 / 3))) for result in found)
