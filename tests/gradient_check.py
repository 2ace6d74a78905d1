"""Check the gradients of one layer against central differences, in double precision.

For a layer ``y = f(x, w)`` and random directions ``u`` and ``v`` the two numbers ``<v, J^T u>`` (from ``backward``) and
``d/dt <u, f(x + t v)>`` (from two calls of ``forward``) must agree. Small arrays are also checked element by element.
Keep inputs off the kinks of the layer (``away_from``, ``distinct_values``) rather than loosening the tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.blob import Blob
from paratrain.layers.base import Layer, LayerContext, create_layer
from paratrain.proto import TRAIN, LayerParameter, NetParameter

__all__ = ["LayerRun", "away_from", "check_gradient", "distinct_values", "layer_parameter", "set_up_layer"]

Array = npt.NDArray[Any]


def layer_parameter(layer: str | LayerParameter) -> LayerParameter:
    """Return the message of a layer given as ``type: "ReLU" ...``, as ``layer { ... }``, or as the message itself."""
    if not isinstance(layer, str):
        return layer
    if layer.lstrip().startswith("layer"):
        (parameter,) = text_format.Parse(layer, NetParameter()).layer
    else:
        parameter = text_format.Parse(layer, LayerParameter())
    return parameter


def distinct_values(shape: Sequence[int], rng: np.random.Generator, gap: float = 0.1) -> Array:
    """Return values in random order of which any two are at least ``gap`` apart, none within gap / 2 of 0: for maxima."""
    count = int(np.prod(shape, dtype=int))
    return ((rng.permutation(count) - count // 2 + 0.5) * gap).reshape(tuple(shape))


def away_from(values: Array, kinks: Sequence[float], band: float = 0.05) -> Array:
    """Return ``values`` with those nearer than ``band`` to one of ``kinks`` moved out to the edge of the band."""
    values = np.array(values, np.float64)
    for kink in kinks:
        near = np.abs(values - kink) < band
        values[near] = np.where(values[near] < kink, kink - band, kink + band)
    return values


@dataclass
class LayerRun:
    """A layer that is set up outside of a net, with its blobs."""

    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]

    def forward(self) -> list[Array]:
        """Run forward and return copies of the tops."""
        self.layer.forward(self.bottoms, self.tops)
        return [top.data.copy() for top in self.tops]


def set_up_layer(
    layer: str | LayerParameter,
    bottoms: Sequence[Any],
    *,
    dtype: npt.DTypeLike = np.float64,
    backend: str = "numpy",
    phase: Any = TRAIN,
    top_count: int | None = None,
    in_place: bool = False,
    context: LayerContext | None = None,
) -> LayerRun:
    """Create the layer, give it bottoms that hold the given arrays, and set it up.

    The number of tops is ``top_count``, else that of the names in the message, else the least the layer makes.
    ``in_place`` makes bottom 0 also top 0. The message gets a name and missing blob names, so that errors read well.
    """
    parameter = LayerParameter()
    parameter.CopyFrom(layer_parameter(layer))
    parameter.name = parameter.name or "layer"
    context = context or LayerContext(backend=create_backend(backend), phase=phase, dtype=dtype)
    made = create_layer(parameter, context)
    if top_count is None:
        least = len(bottoms) if made.equal_bottom_top_count else max(made.top_range[0], 1)
        top_count = len(parameter.top) or least
    for index in range(len(parameter.bottom), len(bottoms)):
        parameter.bottom.append(f"bottom{index}")
    for index in range(len(parameter.top), top_count):
        parameter.top.append(f"top{index}")
    blobs = []
    for values in bottoms:
        blob = Blob(np.shape(values), context.dtype)
        blob.data[...] = values
        blobs.append(blob)
    tops = [Blob(dtype=context.dtype) for _ in range(top_count)]
    if in_place:
        tops[0] = blobs[0]
    made.set_up(blobs, tops)
    return LayerRun(made, blobs, tops)


def check_gradient(
    layer: str | LayerParameter,
    bottoms: Sequence[Any],
    *,
    propagate: Sequence[bool] | None = None,
    parameters: Sequence[Any] | None = None,
    differentiable_tops: Sequence[int] | None = None,
    kinks: Sequence[float] = (),
    kink_band: float = 0.05,
    phase: Any = TRAIN,
    top_count: int | None = None,
    in_place: bool = False,
    context: LayerContext | None = None,
    prepare: Callable[[LayerRun], None] | None = None,
    directions: int = 2,
    exhaustive_limit: int = 150,
    step: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int = 0,
) -> LayerRun:
    """Check every gradient of a layer on the numpy backend in float64; raises AssertionError that says which is wrong.

    ``propagate[i]``: bottom i is differentiated (default: all); the diffs of the others must stay untouched.
    ``parameters``: values of the layer's learnable blobs (default: normal numbers); running statistics are left alone.
    ``differentiable_tops``: the tops that count (default: all; for a loss layer those with a loss weight).
    ``kinks``: points of a bottom's values that are not differentiable: values nearer than ``kink_band`` are moved away
    in all bottoms that propagate. ``prepare(run)`` may change anything after set up, before the first forward pass.
    Blobs of up to ``exhaustive_limit`` values are checked element by element as well as along ``directions`` random
    directions. Besides the numbers it is checked that backward writes the bottoms' diffs (they hold NaN before), adds to
    those of the learnable blobs (they hold numbers before), and that inputs and parameters come out unchanged.
    """
    rng = np.random.default_rng(seed)
    propagate = [True] * len(bottoms) if propagate is None else list(propagate)
    values = [
        away_from(bottom, kinks, kink_band) if down else np.array(bottom, np.float64)
        for bottom, down in zip(bottoms, propagate, strict=True)
    ]
    run = set_up_layer(layer, values, phase=phase, top_count=top_count, in_place=in_place, context=context)
    numbers = [index for index in range(len(run.layer.blobs)) if index not in run.layer.statistic_blobs]
    learnable = [run.layer.blobs[number] for number in numbers]
    for index, blob in enumerate(learnable):
        blob.data[...] = rng.normal(size=blob.shape) if parameters is None else parameters[index]
    if prepare is not None:
        prepare(run)
    point = values + [blob.data.copy() for blob in learnable]
    blobs = run.bottoms + list(learnable)

    def forward(at: Sequence[Array]) -> list[Array]:
        for blob, value in zip(blobs, at, strict=True):
            blob.data[...] = value
        return run.forward()

    outputs = forward(point)
    loss_weights = run.layer.loss_weights
    if differentiable_tops is None:
        chosen = [i for i in range(len(run.tops)) if not run.layer.is_loss or loss_weights[i] != 0]
    else:
        chosen = list(differentiable_tops)
    weights = [np.zeros(top.shape) for top in run.tops]
    for index in chosen:
        weight = loss_weights[index]
        weights[index] = np.full(run.tops[index].shape, weight) if weight else rng.normal(size=run.tops[index].shape)

    def objective(at: Sequence[Array]) -> float:
        tops = forward(at)
        return float(sum((np.asarray(weights[i]) * tops[i]).sum() for i in chosen))

    assert all(np.isfinite(outputs[i]).all() for i in chosen), (
        f"{run.layer.type}: forward gives values that are not finite"
    )
    before: list[Array] = [rng.normal(size=blob.shape) for blob in learnable]
    for blob, down in zip(run.bottoms, propagate, strict=True):
        blob.diff[...] = np.nan if down else 7.0
    for blob, value in zip(learnable, before, strict=True):
        blob.diff[...] = value
    for top, top_weights in zip(run.tops, weights, strict=True):
        top.diff[...] = top_weights
    run.layer.backward(run.tops, propagate, run.bottoms)

    for index, (blob, value) in enumerate(zip(blobs, point, strict=True)):
        if not (in_place and index == 0):
            assert np.array_equal(blob.data, value), (
                f"{run.layer.type}: the values of blob {index} were changed by the layer"
            )
    names, gradients, places = [], [], []
    for index, (blob, down) in enumerate(zip(run.bottoms, propagate, strict=True)):
        if down:
            names.append(f"bottom {index}")
            gradients.append(blob.diff.copy())
            places.append(index)
        elif not (in_place and index == 0):
            assert np.all(blob.diff == 7.0), (
                f"{run.layer.type}: bottom {index} does not propagate and its diff was written"
            )
    for index, (blob, value) in enumerate(zip(learnable, before, strict=True)):
        if run.layer.param_propagate_down[numbers[index]]:
            names.append(f"learnable blob {numbers[index]}")
            gradients.append(blob.diff - value)
            places.append(len(run.bottoms) + index)

    def numeric(place: int, direction: Array) -> float:
        shifted = [list(point), list(point)]
        shifted[0][place] = point[place] + step * direction
        shifted[1][place] = point[place] - step * direction
        return (objective(shifted[0]) - objective(shifted[1])) / (2 * step)

    wrong: list[str] = []

    def compare(name: str, where: str, analytic: float, expected: float) -> None:
        if not abs(analytic - expected) <= atol + rtol * max(abs(analytic), abs(expected)):
            wrong.append(f"{run.layer.type}, {name}, {where}: analytic {analytic:.9g}, numeric {expected:.9g}")

    for name, gradient, place in zip(names, gradients, places, strict=True):
        assert np.isfinite(gradient).all(), f"{run.layer.type}, {name}: the gradient is not finite, or not all written"
        if gradient.size <= exhaustive_limit:
            for index in np.ndindex(*gradient.shape):
                direction = np.zeros(gradient.shape)
                direction[index] = 1.0
                compare(name, f"index {index}", float(gradient[index]), numeric(place, direction))
        for number in range(directions):
            direction = rng.normal(size=gradient.shape)
            analytic = float((gradient * direction).sum())
            compare(name, f"random direction {number}", analytic, numeric(place, direction))
    assert not wrong, f"{len(wrong)} gradients are wrong:\n" + "\n".join(wrong[:12])
    return run
