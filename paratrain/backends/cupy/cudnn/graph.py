"""What cuDNN is asked to compute: a convolution, or one of its gradients, as a graph of operations."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.cudnn.library import UnsupportedError, data_type, library

__all__ = ["ALIGNMENT", "ConvolutionTask", "Direction", "Operand", "build_graph", "strides"]

ALIGNMENT = 16
"""cuDNN takes for granted that arrays begin at a multiple of so many bytes."""


class Direction(enum.Enum):
    """Which of the three convolutions, by the names that cuDNN gives them."""

    FORWARD = "fprop"
    BACKWARD_DATA = "dgrad"
    BACKWARD_WEIGHTS = "wgrad"


class Operand(enum.IntEnum):
    """The arrays of a convolution, or their gradients, by the numbers that graphs know them by."""

    BOTTOM = 1
    WEIGHTS = 2
    BIAS = 3
    TOP = 4


@dataclass(frozen=True)
class ConvolutionTask:
    """One convolution: all that tells it from others.

    Bottom, weights and top are stored as ``dtype`` (by name) with channels last or second; sums are float32. Where
    ``ends_in_bias``, which only FORWARD may, a bias of that dtype is added, and where ``ends_in_relu`` a ReLU follows it.
    """

    direction: Direction
    geometry: ConvolutionGeometry
    dtype: str
    channels_last: bool
    ends_in_bias: bool = False
    ends_in_relu: bool = False

    @property
    def output(self) -> Operand:
        """The array that it writes; it reads the others."""
        return {
            Direction.FORWARD: Operand.TOP,
            Direction.BACKWARD_DATA: Operand.BOTTOM,
            Direction.BACKWARD_WEIGHTS: Operand.WEIGHTS,
        }[self.direction]

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.geometry.groups > 1 and self.geometry.channels == self.geometry.groups

    @property
    def key(self) -> str:
        """The task in words, for whoever keeps notes of it outside of the process."""
        geometry = self.geometry
        sizes = (
            f"{(geometry.batch, geometry.channels, *geometry.spatial)} to {geometry.output_channels} by {geometry.kernel} "
            f"stride {geometry.stride} pad {geometry.pad} dilation {geometry.dilation} groups {geometry.groups}"
        )
        end = f"{' bias' if self.ends_in_bias else ''}{' relu' if self.ends_in_relu else ''}"
        return f"{self.direction.value}{end} {self.dtype} {'channels last' if self.channels_last else 'plain'} {sizes}"


def strides(shape: Sequence[int], *, channels_last: bool) -> list[int]:
    """Return the steps, in values, along the axes (N, C, *spatial) of an array in this order."""
    order = [0, *range(2, len(shape)), 1] if channels_last else list(range(len(shape)))
    found, step = [0] * len(shape), 1
    for axis in reversed(order):
        found[axis] = step
        step *= shape[axis]
    return found


def build_graph(task: ConvolutionTask, **target: Any) -> Any:
    """Return the graph of a task, not yet validated. ``target`` is ``handle=``, or ``device_property=`` where there is no GPU.

    A geometry of one spatial axis becomes one of height 1. Raises UnsupportedError for more than three axes, and where there
    is nothing to compute.
    """
    geometry, cudnn = task.geometry, library()
    axis_count = len(geometry.spatial)
    if not 1 <= axis_count <= 3:
        raise UnsupportedError(f"cuDNN convolves over 1 to 3 axes, not {axis_count}")
    more = 1 if axis_count == 1 else 0

    def sizes(values: Sequence[int], filler: int) -> list[int]:
        return [filler] * more + list(values)

    shapes = {
        Operand.BOTTOM: [geometry.batch, geometry.channels, *sizes(geometry.spatial, 1)],
        Operand.WEIGHTS: [
            geometry.output_channels,
            geometry.channels // geometry.groups,
            *sizes(geometry.kernel, 1),
        ],
        Operand.BIAS: [1, geometry.output_channels, *sizes((1,) * axis_count, 1)],
        Operand.TOP: [geometry.batch, geometry.output_channels, *sizes(geometry.output_spatial, 1)],
    }
    if any(size < 1 for shape in shapes.values() for size in shape):
        raise UnsupportedError("there is nothing to compute")
    kind, single = data_type(task.dtype), cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=single, compute_data_type=single, **target)

    def tensor(operand: Operand) -> Any:
        shape = shapes[operand]
        steps = strides(shape, channels_last=task.channels_last)
        return graph.tensor(name=operand.name.lower(), dim=shape, stride=steps, data_type=kind, uid=int(operand))

    window = {
        "padding": sizes(geometry.pad, 0),
        "stride": sizes(geometry.stride, 1),
        "dilation": sizes(geometry.dilation, 1),
    }
    if task.direction is Direction.FORWARD:
        output = graph.conv_fprop(image=tensor(Operand.BOTTOM), weight=tensor(Operand.WEIGHTS), **window)
        if task.ends_in_bias:
            output = graph.bias(input=output, bias=tensor(Operand.BIAS))
        if task.ends_in_relu:
            output = graph.relu(input=output)
    elif task.direction is Direction.BACKWARD_DATA:
        output = graph.conv_dgrad(loss=tensor(Operand.TOP), filter=tensor(Operand.WEIGHTS), **window)
    else:
        output = graph.conv_wgrad(image=tensor(Operand.BOTTOM), loss=tensor(Operand.TOP), **window)
    shape = shapes[task.output]
    output.set_output(True).set_dim(shape).set_stride(strides(shape, channels_last=task.channels_last))
    output.set_data_type(kind).set_uid(int(task.output))
    return graph
