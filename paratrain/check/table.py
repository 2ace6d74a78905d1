"""The table that ``paratrain check`` prints for each net: layers, shapes, parameters, multiply-adds, memory."""

from __future__ import annotations

from collections.abc import Iterator

from paratrain.blob import Blob
from paratrain.blob.limits import format_bytes
from paratrain.check.figures import Memory, multiply_adds
from paratrain.check.shapes import ShapedLayer, ShapedNet, top_names

__all__ = ["format_count", "format_memory", "format_table"]

_HEADS = ("layer", "type", "top", "shape", "parameters", "multiply-adds")
_RIGHT = (4, 5)


def format_table(net: ShapedNet) -> Iterator[str]:
    """Yield the lines of the table, a line for each top, and the sums."""
    rows = [row for shaped in net.layers if shaped.parameter.type != "Split" for row in _rows(shaped)]
    parameter_count = sum(entry.blob.count for entry in net.parameters.entries)
    total = sum(multiply_adds(shaped) for shaped in net.layers)
    rows.append(("total", "", "", "", f"{parameter_count:,}", format_count(total)))
    widths = [max(len(row[column]) for row in [_HEADS, *rows]) for column in range(len(_HEADS))]
    for index, row in enumerate([_HEADS, *rows]):
        if index in (1, len(rows)):
            yield "  ".join("-" * width for width in widths)
        cells = [cell.rjust(width) if column in _RIGHT else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(cells).rstrip()


def format_memory(memory: Memory, history: str) -> Iterator[str]:
    """Yield a line for each kind of memory of a rank, then their sum; ``history`` says whose the history is."""
    parts = [
        ("data of blobs", memory.data),
        ("gradients of blobs", memory.diff),
        ("parameters", memory.parameters),
        ("their gradients", memory.parameter_diff),
        (f"history ({history}), on the root only", memory.history),
        ("exchange buffers, on ranks with children in the tree", memory.exchange),
    ]
    shown = [(name, count) for name, count in parts if count] + [("in all", memory.total)]
    width = max(len(name) for name, _ in shown)
    for name, count in shown:
        yield f"  {name.ljust(width)}  {format_bytes(count):>10}"


def format_count(count: int) -> str:
    """``1.43 G``: three digits, with the unit that suits; units are powers of 1000."""
    size, units = float(count), ["", "k", "M", "G", "T", "P"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{count}" if not units[0] else f"{size:.3g} {units[0]}"


def _rows(shaped: ShapedLayer) -> Iterator[tuple[str, ...]]:
    parameter, layer = shaped.parameter, shaped.layer
    blobs = layer.blobs if layer is not None else []
    parameters = f"{sum(blob.count for blob in blobs):,}" if blobs else ""
    cost = multiply_adds(shaped)
    names = top_names(shaped) or [""]
    for index, name in enumerate(names):
        shape = _shape(shaped.tops[index]) if index < len(shaped.tops) else ""
        in_place = index < len(parameter.bottom) and parameter.bottom[index] == name
        first = (parameter.name, parameter.type) if index == 0 else ("", "")
        figures = (parameters, format_count(cost) if cost else "") if index == 0 else ("", "")
        yield (*first, name + (" (in place)" if in_place and name else ""), shape, *figures)


def _shape(blob: Blob | None) -> str:
    if blob is None:
        return "?"
    return " x ".join(map(str, blob.shape)) if blob.shape else "1 value"
