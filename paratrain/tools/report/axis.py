"""Where an axis has its marks, and what is written beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Axis", "linear_axis", "logarithmic_axis"]


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, with marks and their texts."""

    low: float
    high: float
    marks: tuple[float, ...]
    texts: tuple[str, ...]
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 at ``low`` to 1 at ``high``."""
        if self.is_logarithmic:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, most: int = 6, *, tight: bool = False) -> Axis:
    """Round marks, ``most`` at most, around what lies between ``low`` and ``high``; a ``tight`` axis ends with the values."""
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = (low, low + 1.0) if tight else (low - spread, high + spread)
    step = _step((high - low) / max(1, most - 1))
    first, last = math.floor(low / step), math.ceil(high / step)
    first += round((first + 1) * step, 12) <= low  # 0.3 / 0.1 is a little less than 3
    last -= round((last - 1) * step, 12) >= high
    marks = [round(number * step, 12) for number in range(first, last + 1)]
    if tight:
        marks = [mark for mark in marks if low <= mark <= high]
        return Axis(low, high, tuple(marks), tuple(_text(mark, step) for mark in marks))
    return Axis(marks[0], marks[-1], tuple(marks), tuple(_text(mark, step) for mark in marks))


def logarithmic_axis(low: float, high: float, most: int = 6) -> Axis:
    """Powers of ten, every second or third one where there are many; both ends are above 0."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    stride = math.ceil((last - first) / (most - 1))
    powers = range(first, last + 1, stride)
    marks = [10.0**power for power in powers]
    return Axis(10.0**first, 10.0**last, tuple(marks), tuple(f"{mark:g}" for mark in marks), is_logarithmic=True)


def _step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least so large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _text(mark: float, step: float) -> str:
    """A mark with as many digits as tell it from the next one; thousands as k, millions as M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if step >= unit / 10 and abs(mark) >= unit:
            return f"{mark / unit:.6g}{name}"
    if mark == 0:
        return "0"
    if abs(mark) < 1e-4:
        return f"{mark:.3g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{mark:.{digits + 1}f}".rstrip("0")
    return text.rstrip(".") if "." in text else text
