"""Convolutions by cuDNN, as a layer uses them."""

from __future__ import annotations

import dataclasses
from typing import Any

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.bias import Bias
from paratrain.backends.cupy.cudnn.graph import ConvolutionTask, Direction, Operand
from paratrain.backends.cupy.cudnn.library import UnsupportedError
from paratrain.backends.cupy.cudnn.runner import CudnnRunner
from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.precision import Precision
from paratrain.backends.cupy.weights import PreparedWeights, WeightsGradient
from paratrain.blob import Memory

__all__ = ["CudnnConvolution", "convolution_task", "may_end_in_bias"]


def convolution_task(direction: Direction, geometry: ConvolutionGeometry, precision: Precision) -> ConvolutionTask:
    """Return the task for arrays in the type and order of a precision, see :attr:`CudnnRunner.channels_last`."""
    return ConvolutionTask(direction, geometry, precision.storage.name, precision is not Precision.FLOAT32)


def may_end_in_bias(task: ConvolutionTask) -> bool:
    """Whether cuDNN has as good kernels that also add a bias and rectify: not for depthwise ones, nor without tensor cores."""
    return task.channels_last and not task.is_depthwise


class CudnnConvolution:
    """A convolution of one geometry and its gradients, in the precision of the runner and the order that it prefers.

    ``bottom_form`` and ``top_form`` are those of all arrays that come in and go out. Raises UnsupportedError where cuDNN has no
    plan for the forward pass; ask for the others by :meth:`prepare_backward`.
    """

    def __init__(
        self,
        runner: CudnnRunner,
        forms: Forms,
        geometry: ConvolutionGeometry,
        *,
        has_bias: bool,
        relu_follows: bool = False,
    ) -> None:
        self._runner, self._forms, self._geometry = runner, forms, geometry
        self._forward = convolution_task(Direction.FORWARD, geometry, runner.precision)
        self._backward_data = convolution_task(Direction.BACKWARD_DATA, geometry, runner.precision)
        self._backward_weights = convolution_task(Direction.BACKWARD_WEIGHTS, geometry, runner.precision)
        self._bias = Bias(forms)

        def form(*shape: int) -> Form:
            return Form.of(shape, runner.precision.storage, channels_last=self._forward.channels_last)

        self.bottom_form = form(geometry.batch, geometry.channels, *geometry.spatial)
        self.top_form = form(geometry.batch, geometry.output_channels, *geometry.output_spatial)
        channels = geometry.channels // geometry.groups
        self._weights = PreparedWeights(forms, form(geometry.output_channels, channels, *geometry.kernel))
        self._gradient = WeightsGradient(forms, self._weights.form)
        self._ends_in_bias = has_bias and may_end_in_bias(self._forward)
        if not (self._ends_in_bias and self._can_run(self._forward_with_bias(ends_in_relu=relu_follows))):
            runner.prepare(self._forward)

    def prepare_backward(self, *, weights: bool, data: bool) -> None:
        """Make sure that these gradients can be computed. Raises UnsupportedError."""
        if weights:
            self._runner.prepare(self._backward_weights)
        if data:
            self._runner.prepare(self._backward_data)

    def forward(self, x: Any, weights: Memory, bias: Memory | None, y: Any, relu_slope: float | None = None) -> None:
        """y = weights * x + bias, then, with ``relu_slope``, a ReLU of this negative slope."""
        task, left_bias, left_slope = self._forward, bias, relu_slope
        if bias is not None and self._ends_in_bias:
            # cuDNN's kernels that were compiled before know no slope.
            for ends_in_relu in (True, False) if relu_slope == 0 else (False,):
                whole = self._forward_with_bias(ends_in_relu=ends_in_relu)
                if self._can_run(whole):
                    task, left_bias, left_slope = whole, None, None if ends_in_relu else relu_slope
                    break
        prepared, prepared_bias = self._weights.read(weights, bias if self._ends_in_bias else None)
        arrays = {Operand.BOTTOM: x, Operand.WEIGHTS: prepared, Operand.TOP: y}
        self._runner.run(task, arrays | {Operand.BIAS: prepared_bias} if task.ends_in_bias else arrays)
        bias_array = None if left_bias is None else left_bias.device(self._forms.device)
        self._bias.add(y, self.top_form, bias_array, left_slope)

    def backward_data(self, dy: Any, weights: Memory, bias: Memory | None, dx: Any) -> None:
        """dx = the gradient by the bottom. The bias is that of the forward pass, with which the weights were prepared."""
        prepared, _ = self._weights.read(weights, bias if self._ends_in_bias else None)
        arrays = {Operand.TOP: dy, Operand.WEIGHTS: prepared, Operand.BOTTOM: dx}
        self._runner.run(self._backward_data, arrays)

    def backward_weights(self, x: Any, dy: Any, weights_diff: Any, *, accumulate: bool = True) -> None:
        """weights_diff (flat, plain) = the gradient by the weights, or += to ``accumulate``."""
        place = self._gradient.place(weights_diff, accumulate=accumulate)
        self._runner.run(self._backward_weights, {Operand.BOTTOM: x, Operand.TOP: dy, Operand.WEIGHTS: place})
        self._gradient.finish(place, weights_diff, accumulate=accumulate)

    def _forward_with_bias(self, *, ends_in_relu: bool) -> ConvolutionTask:
        return dataclasses.replace(self._forward, ends_in_bias=True, ends_in_relu=ends_in_relu)

    def _can_run(self, task: ConvolutionTask) -> bool:
        try:
            self._runner.prepare(task)
        except UnsupportedError:
            return False
        return True
