"""Lists of numbers as Linux, MPI and nvidia-smi write them: ``0-15,32-47``."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 1 << 20  # numbers in one list; a longer one is garbage


def parse_ranges(text: str) -> tuple[int, ...] | None:
    """The sorted numbers of a text such as "0-3,8"; () for an empty text, None for one that is no such list."""
    numbers: set[int] = set()
    for part in text.strip().split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            return None
        low, high = int(first), int(last or first)
        if high < low or high - low >= _MOST:
            return None
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def format_ranges(numbers: Iterable[int]) -> str:
    """Numbers as "0-15,32-47", sorted; "" for none."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
