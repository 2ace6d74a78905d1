"""A net as a table, a line for each layer: what Caffe's tools/extra/summarize shows, with shapes and costs; and its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.check.figures import multiply_adds
from paratrain.check.shapes import ShapedLayer, ShapedNet, top_names
from paratrain.check.table import format_count
from paratrain.data.hdf5 import is_hdf5, read_weights
from paratrain.errors import SnapshotError
from paratrain.proto import LayerParameter, NetParameter, ParamSpec, read_binary, upgrade_net
from paratrain.proto.blob_proto import blob_to_array

__all__ = ["Table", "Weights", "format_table", "open_weights", "summarize_net", "summarize_weights"]

Weights = dict[str, list[npt.NDArray[Any]]]
"""The blobs of each layer that has some, by name."""


@dataclass(frozen=True)
class Table:
    """Rows of texts under heads; ``right`` are the columns of numbers."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[int, ...] = ()


def format_table(table: Table, width: int | None = None) -> Iterator[str]:
    """The lines of a table. Columns are at most ``width`` wide: a longer text runs over, and what follows it takes up the
    slack where it can.
    """
    rows = [table.heads, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.heads))]
    widths = [min(one, width) if width else one for one in widths]
    rows.insert(1, tuple("-" * one for one in widths))
    for row in rows:
        line, end = "", 0
        for column, (cell, one) in enumerate(zip(row, widths, strict=True)):
            room = max(0, end + one - len(line))
            line += cell.rjust(room) if column in table.right else cell.ljust(room)
            line, end = line + "  ", end + one + 2
        yield line.rstrip()


def summarize_net(net: ShapedNet) -> Table:
    """A line for each layer: name and type, what its parameters have for names and multipliers, bottoms and tops, kernel, shape
    of the first top, parameters and multiply-adds of a forward pass; sums below.

    A kernel is ``11/4+2 96/2``: size 11, stride 4, pad 2, 96 outputs in 2 groups; only what is not usual is written. A top that
    nobody reads stands in brackets.
    """
    source = {
        top: one.parameter.bottom[0] for one in net.layers if one.parameter.type == "Split" for top in one.parameter.top
    }
    shown = [one for one in net.layers if one.parameter.type != "Split"]
    read = {source.get(bottom, bottom) for one in shown for bottom in one.parameter.bottom}
    rows = []
    for one in shown:
        parameter = one.parameter
        bottoms = [source.get(bottom, bottom) for bottom in parameter.bottom]
        tops = [name if name in read else f"[{name}]" for name in top_names(one)]
        blobs = one.layer.blobs if one.layer is not None else []
        cost = multiply_adds(one)
        rows.append((
            parameter.name,
            _type(parameter),
            _specs(parameter.param),
            f"{', '.join(bottoms)} -> {', '.join(tops)}".strip(),
            _kernel(parameter),
            _shape(one),
            f"{sum(blob.count for blob in blobs):,}" if blobs else "",
            format_count(cost) if cost else "",
        ))  # fmt: skip
    total = sum(entry.blob.count for entry in net.parameters.entries)
    costs = format_count(sum(map(multiply_adds, net.layers)))
    rows.append(("total", f"{len(shown)} layers", "", "", "", "", f"{total:,}", costs))
    heads = ("layer", "type", "param", "bottoms -> tops", "kernel", "shape", "parameters", "multiply-adds")
    return Table(heads, rows, (6, 7))


def open_weights(path: str | Path) -> Weights:
    """Read a caffemodel of any age, or weights in HDF5. Raises SnapshotError."""
    if is_hdf5(path):
        found = read_weights(path)
        return {name: [blobs[index] for index in sorted(blobs)] for name, blobs in found.items()}
    source = upgrade_net(read_binary(path, NetParameter))
    if not source.layer:
        raise SnapshotError(f"{path}: holds no layers; expected a caffemodel")
    return {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in source.layer if layer.blobs}


def summarize_weights(weights: Weights, net: ShapedNet | None = None) -> Table:
    """A line for each blob of weights: shape, count, mean, deviation, extremes; and whether ``net`` has a place for it."""
    rows = []
    places = _places(net) if net is not None else {}
    for name, blobs in weights.items():
        for index, blob in enumerate(blobs):
            values = blob.astype(np.float64)
            figures = (values.mean(), values.std(), values.min(), values.max()) if blob.size else ()
            rows.append((
                name if index == 0 else "",
                str(index),
                " x ".join(map(str, blob.shape)) or "1 value",
                f"{blob.size:,}",
                *(f"{figure:.4g}" for figure in figures),
                *[""] * (4 - len(figures)),
                _fit(places.get(name), index, blob.shape) if net is not None else "",
            ))  # fmt: skip
    for name in places:
        if name not in weights:
            rows.append((name, "", "", "", "", "", "", "", "not in the weights"))
    total = sum(blob.size for blobs in weights.values() for blob in blobs)
    rows.append(("total", "", "", f"{total:,}", "", "", "", "", ""))
    return Table(("layer", "blob", "shape", "values", "mean", "std", "min", "max", "net"), rows, (3, 4, 5, 6, 7))


def _places(net: ShapedNet) -> Mapping[str, Sequence[tuple[int, ...]]]:
    return {
        one.parameter.name: [blob.shape for blob in one.layer.blobs]
        for one in net.layers
        if one.layer is not None and one.layer.blobs
    }


def _fit(places: Sequence[tuple[int, ...]] | None, index: int, shape: tuple[int, ...]) -> str:
    if places is None:
        return "no such layer"
    if index >= len(places):
        return "one blob too many"
    wanted = places[index]
    if wanted == shape:
        return "fits"
    without_ones = tuple(size for size in shape if size != 1), tuple(size for size in wanted if size != 1)
    if without_ones[0] == without_ones[1]:  # Caffe wrote four axes once
        return "fits"
    return f"the net has {' x '.join(map(str, wanted))}"


def _type(parameter: LayerParameter) -> str:
    if parameter.type == "Python":
        return f"{parameter.python_param.module}.{parameter.python_param.layer}"
    return parameter.type


def _specs(specs: Sequence[ParamSpec]) -> str:
    """``(w x2 Dx0)``: shared as w, twice the learning rate, no decay. Empty where all is usual."""
    texts = []
    for spec in specs:
        words = [spec.name] if spec.name else []
        if spec.lr_mult != 1:
            words.append(f"x{spec.lr_mult:g}")
        if spec.decay_mult != 1:
            words.append(f"Dx{spec.decay_mult:g}")
        texts.append(" ".join(words))
    return f"({', '.join(texts)})" if any(texts) else ""


def _kernel(parameter: LayerParameter) -> str:
    if parameter.HasField("convolution_param"):
        conv = parameter.convolution_param
        size = _axes(conv.kernel_size, conv.kernel_h, conv.kernel_w)
        stride = _axes(conv.stride, conv.stride_h, conv.stride_w)
        pad = _axes(conv.pad, conv.pad_h, conv.pad_w)
        groups = f"/{conv.group}" if conv.group != 1 else ""
        outputs = f" {conv.num_output}{groups}" if conv.num_output else ""
        dilation = f" dilation {_axes(conv.dilation)}" if any(one != 1 for one in conv.dilation) else ""
        return _window(size, stride, pad) + outputs + dilation
    if parameter.HasField("pooling_param"):
        pool = parameter.pooling_param
        if pool.global_pooling:
            return "all"
        return _window(
            _axes([pool.kernel_size] if pool.kernel_size else [], pool.kernel_h, pool.kernel_w),
            _axes([pool.stride], pool.stride_h, pool.stride_w),
            _axes([pool.pad], pool.pad_h, pool.pad_w),
        )
    if parameter.HasField("inner_product_param"):
        return str(parameter.inner_product_param.num_output)
    return ""


def _window(size: str, stride: str, pad: str) -> str:
    return size + (f"/{stride}" if stride not in ("", "1") else "") + (f"+{pad}" if pad not in ("", "0") else "")


def _axes(values: Sequence[int], height: int = 0, width: int = 0) -> str:
    """``3``, or ``3x5`` where axes differ."""
    sizes = [height, width] if height or width else list(values)
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


def _shape(one: ShapedLayer) -> str:
    blob = one.tops[0] if one.tops else None
    if blob is None:
        return "?" if one.tops else ""
    return " x ".join(map(str, blob.shape)) or "1 value"
