"""What ``paratrain time --compare`` prints: a table, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "LayerTimes", "Timing", "comparison_values", "format_comparison"]

_LONGEST_NAME = 28
_ON_GPUS = ("cupy",)


@dataclass(frozen=True)
class Timing:
    """Mean seconds of a layer's passes on one backend, and what computed them."""

    forward_s: float
    backward_s: float
    kernels: str

    @property
    def total_s(self) -> float:
        return self.forward_s + self.backward_s


@dataclass(frozen=True)
class LayerTimes:
    """A layer on each backend."""

    name: str
    type: str
    forward_operations: int
    """Multiplications and additions of a pass, by the layer's geometry; 0 where products are not what it does."""
    backward_operations: int
    timings: dict[str, Timing]

    def rate(self, backend: str) -> float | None:
        """Operations a second over both passes; None where they are not counted."""
        operations, seconds = self.forward_operations + self.backward_operations, self.timings[backend].total_s
        return operations / seconds if operations and seconds > 0 else None


@dataclass(frozen=True)
class Comparison:
    """The layers of a net on some backends."""

    backends: tuple[str, ...]
    layers: list[LayerTimes]
    peaks: dict[str, float]
    """Operations a second of a rank's fastest matrix product, for each backend: on a GPU in ``precision``, else in float32."""
    rank_count: int
    precision: str = "float32"

    def total_s(self, backend: str) -> float:
        """Seconds of all layers' passes."""
        return sum(layer.timings[backend].total_s for layer in self.layers)


def format_comparison(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the table, its sums, and what they mean."""
    backends = comparison.backends
    heads = ["layer", "type"]
    above = ["", ""]
    for name in backends:
        above += [name, "", "", ""]
        heads += ["forward", "backward", "GFLOP/s", "of peak"]
    heads.append("kernels" if len(backends) > 1 else "kernel")
    above.append("")
    rows = [_row(layer, comparison) for layer in comparison.layers]
    sums = ["total", ""]
    for name in backends:
        timings = [layer.timings[name] for layer in comparison.layers]
        sums += [_ms(sum(t.forward_s for t in timings)), _ms(sum(t.backward_s for t in timings)), "", ""]
    rows.append([*sums, ""])
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    yield "  ".join(_cell(text, width, 0) for text, width in zip(above, widths, strict=True)).rstrip()
    for index, row in enumerate([heads, *rows]):
        if index in (1, len(rows)):
            yield "  ".join("-" * width for width in widths)
        yield "  ".join(
            _cell(text, width, column) for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    yield ""
    yield (
        "Milliseconds, means over iterations and ranks. GFLOP/s: a product and a sum are two operations, forward and backward "
        "together."
    )
    each = " in each rank" if comparison.rank_count > 1 else ""
    for name in backends:
        if name not in _ON_GPUS:
            yield f"Peak: {comparison.peaks[name] / 1e9:.4g} GFLOP/s{each}, of a big matrix product in float32."
            break
    for name in backends:
        if name in _ON_GPUS:
            peak, kind = comparison.peaks[name] / 1e9, comparison.precision
            yield f"Peak of {name}: {peak:.4g} GFLOP/s{each}, of a big matrix product in {kind}."
    totals = {name: comparison.total_s(name) for name in backends}
    best = min(totals, key=lambda name: totals[name])
    for name in backends:
        if name != best:
            times = totals[name] / totals[best]
            yield f"Forward and backward: {best} takes {_ms(totals[best])} ms, {name} {times:.3g} times as long."


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """The same as values for JSON: seconds and operations a second."""
    return {
        "schema": 1,
        "backends": list(comparison.backends),
        "ranks": comparison.rank_count,
        "precision": comparison.precision,
        "peak_flops": next((peak for name, peak in comparison.peaks.items() if name not in _ON_GPUS), None),
        "peak_flops_of": comparison.peaks,
        "total_s": {name: comparison.total_s(name) for name in comparison.backends},
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "forward_operations": layer.forward_operations,
                "backward_operations": layer.backward_operations,
                "backends": {
                    name: {
                        "forward_s": timing.forward_s,
                        "backward_s": timing.backward_s,
                        "kernels": timing.kernels,
                        "flops": layer.rate(name),
                    }
                    for name, timing in layer.timings.items()
                },
            }
            for layer in comparison.layers
        ],
    }


def _row(layer: LayerTimes, comparison: Comparison) -> list[str]:
    row = [_shortened(layer.name), layer.type]
    for name in comparison.backends:
        timing, rate = layer.timings[name], layer.rate(name)
        row += [_ms(timing.forward_s), _ms(timing.backward_s)]
        row += ["", ""] if rate is None else [f"{rate / 1e9:.1f}", f"{100 * rate / comparison.peaks[name]:.0f}%"]
    # NumPy computes all of its own column: only what others use says something.
    others = [layer.timings[name].kernels for name in comparison.backends if name != "numpy"]
    return [*row, " | ".join(others) if others else layer.timings["numpy"].kernels]


def _cell(text: str, width: int, column: int) -> str:
    """Names to the left, as is the last column, whose rest is cut off; figures to the right."""
    return text.ljust(width) if column < 2 or not _is_figure(text) else text.rjust(width)


def _is_figure(text: str) -> bool:
    return text[:1].isdigit() or text in ("forward", "backward", "GFLOP/s", "of peak")


def _shortened(name: str) -> str:
    """A long name without its middle: the ends of such names are what differs."""
    half = (_LONGEST_NAME - 2) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}..{name[-half:]}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
