"""Layers with weights: convolutions, inner products, tables, factors and biases."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paratrain.layers.sliding import Sliding, read_sliding
from paratrain.tools.onnx.graph import Size
from paratrain.tools.onnx.view import LayerView, translates

__all__: list[str] = []


@translates("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", "Deconvolution")
def _convolution(view: LayerView) -> list[str]:
    parameter = view.layer.parameter
    size = view.bottoms[0]
    axis = parameter.convolution_param.axis % size.rank
    sliding = read_sliding(view.layer, size.rank - axis - 1)
    is_depthwise = parameter.type in ("DepthwiseConvolution", "ConvolutionDepthwise")
    group = size.shape[axis] if is_depthwise else parameter.convolution_param.group
    weights = view.layer.blobs[0].shape
    # A kernel without axes is one of a single pixel.
    inputs = [view.parameter(0, weights if sliding.kernel else (*weights, 1))]
    if parameter.convolution_param.bias_term:
        inputs.append(view.parameter(1))
    op = "ConvTranspose" if parameter.type == "Deconvolution" else "Conv"
    return [
        _as_batch(view, index, axis, lambda x: view.add(op, x, *inputs, group=group, **_sizes(sliding)))
        for index in range(len(view.inputs))
    ]


def _as_batch(view: LayerView, index: int, axis: int, apply: Callable[[str], str]) -> str:
    """Apply to bottom ``index`` seen as (batch, C, *spatial), with at least one spatial axis; return it as the top."""
    size, top = view.bottoms[index], view.tops[index]
    y = apply(view.reshape(view.inputs[index], size, _batched(size, axis)))
    return view.reshape(y, _batched(top, axis), top)


def _batched(size: Size, axis: int) -> Size:
    spatial = [[place] for place in range(axis + 1, size.rank)] or [[]]
    return size.joined(list(range(axis)), [axis], *spatial)


def _sizes(sliding: Sliding) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(sliding.kernel or (1,)),
        "strides": list(sliding.stride or (1,)),
        "pads": list(sliding.pad or (0,)) * 2,
        "dilations": list(sliding.dilation or (1,)),
    }


@translates("Im2col")
def _im2col(view: LayerView) -> list[str]:
    """A convolution of each channel with kernels that hold a single 1."""
    size = view.bottoms[0]
    axis = view.layer.parameter.convolution_param.axis % size.rank
    sliding = read_sliding(view.layer, size.rank - axis - 1)
    channels, count = size.shape[axis], math.prod(sliding.kernel)
    kernels = np.tile(np.eye(count, dtype=np.float32), (channels, 1)).reshape(-1, 1, *(sliding.kernel or (1,)))
    weights = view.floats("one_hot", kernels)
    return [_as_batch(view, 0, axis, lambda x: view.add("Conv", x, weights, group=channels, **_sizes(sliding)))]


@translates("InnerProduct")
def _inner_product(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.inner_product_param
    size, top = view.bottoms[0], view.tops[0]
    axis = parameter.axis % size.rank
    x = view.inputs[0] if (size.rank, axis) == (2, 1) else view.add("Flatten", view.inputs[0], axis=axis)
    inputs = [view.parameter(index) for index in range(len(view.layer.blobs))]
    y = view.add("Gemm", x, *inputs, transB=int(not parameter.transpose))
    return [view.reshape(y, top.joined(list(range(axis)), [axis]), top)]


@translates("Embed")
def _embed(view: LayerView) -> list[str]:
    y = view.add("Gather", view.parameter(0), view.add("Cast", view.inputs[0], to="INT64"), axis=0)
    return [view.add("Add", y, view.parameter(1)) if len(view.layer.blobs) > 1 else y]


@translates("BatchReindex")
def _batch_reindex(view: LayerView) -> list[str]:
    return [view.add("Gather", view.inputs[0], view.add("Cast", view.inputs[1], to="INT64"), axis=0)]


@translates("Scale")
def _scale(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.scale_param
    factor = _covering(view, 0, parameter.axis)
    y = view.add("Mul", view.inputs[0], factor)
    if not parameter.bias_term:
        return [y]
    bias = view.parameter(-1 % len(view.layer.blobs), _covered_shape(view, view.layer.blobs[-1].shape, parameter.axis))
    return [view.add("Add", y, bias)]


@translates("Bias")
def _bias(view: LayerView) -> list[str]:
    return [view.add("Add", view.inputs[0], _covering(view, 0, view.layer.parameter.bias_param.axis))]


def _covering(view: LayerView, index: int, axis: int) -> str:
    """Bottom 1, or else blob ``index``, with axes of 1 behind, so that it broadcasts to bottom 0."""
    if len(view.inputs) == 1:
        return view.parameter(index, _covered_shape(view, view.layer.blobs[index].shape, axis))
    size = view.bottoms[1]
    behind = len(_covered_shape(view, size.shape, axis)) - size.rank
    if not behind:
        return view.inputs[1]
    return view.add("Unsqueeze", view.inputs[1], view.integers("axes", list(range(size.rank, size.rank + behind))))


def _covered_shape(view: LayerView, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    rank = view.bottoms[0].rank
    return (*shape, *(1,) * (rank - axis % rank - len(shape))) if shape else ()
