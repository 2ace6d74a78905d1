"""What the test of one link finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Limits", "LinkResult", "Verdict", "from_values", "to_values"]


class Verdict(Enum):
    """How a link did. Only `OK` and `SLOWER` moved every byte as it should."""

    OK = "ok"
    WRONG_DATA = "wrong data"
    HANG = "hang"
    ERROR = "error"
    SLOWER = "slower than host"


@dataclass(frozen=True)
class Limits:
    """How long one link may take, in seconds, and what is moved; `measure` asks for bandwidth and latency too."""

    link_s: float = 10.0
    start_s: float = 60.0
    """What starting the processes of the test may take on top."""
    byte_count: int = (1 << 20) + 37
    """The size of a checked message: its tail is odd, so that it ends inside a word, a packet and a page."""
    repeat_count: int = 3
    measure: bool = False


@dataclass(frozen=True)
class LinkResult:
    """The link between two members (GPUs by index, or ranks), a < b, over one transport ("ipc", "host", "shared", "mpi").

    `detail` says in words what was wrong, where something was. `bytes_per_s` (one direction) and `latency_s` are medians, None
    where nothing was measured. `host_bytes_per_s` is the rate of the same pair through the host's memory.
    """

    a: int
    b: int
    transport: str
    verdict: Verdict
    detail: str = ""
    bytes_per_s: float | None = None
    latency_s: float | None = None
    host_bytes_per_s: float | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """The two members, the lower first."""
        return self.a, self.b

    @property
    def is_usable(self) -> bool:
        """Whether this transport should carry gradients over this link."""
        return self.verdict is Verdict.OK


def to_values(result: LinkResult) -> dict[str, Any]:
    """A result as plain values for JSON; `gbps` is 10^9 bytes a second."""
    return {
        "a": result.a,
        "b": result.b,
        "transport": result.transport,
        "verified": result.verdict.value,
        "detail": result.detail or None,
        "gbps": _scaled(result.bytes_per_s, 1e-9),
        "latency_us": _scaled(result.latency_s, 1e6),
        "host_gbps": _scaled(result.host_bytes_per_s, 1e-9),
    }


def from_values(values: dict[str, Any]) -> LinkResult:
    """The result that `to_values` has made these of. KeyError, TypeError or ValueError for anything else."""
    a, b = values["a"], values["b"]
    if type(a) is not int or type(b) is not int or not 0 <= a < b:
        raise ValueError(f"pair {a!r}, {b!r}: expected two numbers, the lower first")
    return LinkResult(
        a,
        b,
        str(values["transport"]),
        Verdict(values["verified"]),
        str(values["detail"] or ""),
        _positive(values["gbps"], 1e9),
        _positive(values["latency_us"], 1e-6),
        _positive(values["host_gbps"], 1e9),
    )


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else round(value * scale, 9)


def _positive(value: Any, scale: float) -> float | None:
    if value is None:
        return None
    number = float(value) * scale
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no rate and no time")
    return number
