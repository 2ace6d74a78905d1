"""Questions to NVML, each of which may go unanswered, and its answers as plain values."""

from __future__ import annotations

from typing import Any


class Driver:
    """NVML as the module `library` (pynvml) offers it. A question that is not answered gives None; none raises."""

    def __init__(self, library: Any) -> None:
        self.library = library

    def ask(self, function: str, *arguments: Any) -> Any:
        """NVML's answer, or None if this driver, device, container or version of pynvml does not give one."""
        try:
            return getattr(self.library, function)(*arguments)
        except Exception:  # NVMLError, a function this pynvml lacks, an argument it refuses
            return None

    def number(self, function: str, *arguments: Any) -> int | None:
        """An answer that is a number that is not negative."""
        answer = self.ask(function, *arguments)
        return int(answer) if isinstance(answer, int) and answer >= 0 else None

    def text(self, function: str, *arguments: Any) -> str:
        """An answer that is a text; "" for none."""
        return as_text(self.ask(function, *arguments))

    def field(self, handle: Any, number: int, scope: int = 0) -> int | None:
        """One of NVML's numbered values, for the port `scope` where it has one for each."""
        answer = self.ask("nvmlDeviceGetFieldValues", handle, [(number, scope)] if scope else [number])
        try:
            return int(answer[0].value.uiVal) if answer[0].nvmlReturn == 0 else None
        except (TypeError, AttributeError, IndexError, ValueError, KeyError):
            return None


def as_text(value: object) -> str:
    """What NVML answers as a text: some versions of pynvml give bytes; anything else becomes ""."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def set_bits(words: Any) -> list[int]:
    """The numbers of the bits that are set in an array of 64-bit words; [] if it is none."""
    try:
        numbers = [int(word) for word in words]
    except (TypeError, ValueError):
        return []
    return [64 * place + bit for place, word in enumerate(numbers) for bit in range(64) if word >> bit & 1]
