from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.tools.report.axis import linear_axis, logarithmic_axis

numbers = st.floats(-1e12, 1e12, allow_nan=False).map(lambda value: round(value, 6))


@given(numbers, numbers)
def test_an_axis_holds_its_values_and_its_texts_differ(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if 0 < high - low < 1e-7 * max(abs(low), abs(high)):
        return  # closer than what a mark's six digits tell apart
    axis = linear_axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert 2 <= len(axis.marks) <= 8
    assert all(0 <= axis.place(value) <= 1 for value in (low, high, *axis.marks))
    tight = linear_axis(low, high, tight=True)
    assert all(tight.low <= mark <= tight.high for mark in tight.marks)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ("0", "0.2", "0.4", "0.6", "0.8", "1")),
        (0.3, 2.4, ("0", "0.5", "1", "1.5", "2", "2.5")),
        (0.00994, 0.01, ("0.00994", "0.00996", "0.00998", "0.01")),
        (0, 6000, ("0", "2k", "4k", "6k")),
        (12000, 16000, ("12k", "13k", "14k", "15k", "16k")),
        (5, 5, ("4.4", "4.6", "4.8", "5", "5.2", "5.4", "5.6")),
    ],
)
def test_marks_are_round(low: float, high: float, texts: tuple[str, ...]) -> None:
    assert linear_axis(low, high).texts == texts


def test_powers_of_ten() -> None:
    axis = logarithmic_axis(0.002, 3)
    assert axis.texts == ("0.001", "0.01", "0.1", "1", "10")
    assert axis.place(0.1) == pytest.approx(0.5)
    assert logarithmic_axis(1e-12, 1e6).texts == ("1e-12", "1e-08", "0.0001", "1", "10000")
