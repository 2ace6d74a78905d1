"""Layers that work value by value, in the form in which their bottoms come."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.absval import AbsValLayer
from paratrain.layers.activation import SigmoidLayer, TanHLayer
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.bnll import BNLLLayer
from paratrain.layers.clip import ClipLayer, ThresholdLayer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.kept_input import KeptInput
from paratrain.layers.elu import ELULayer
from paratrain.layers.exp_log import ExpLayer, LogLayer
from paratrain.layers.power import PowerLayer
from paratrain.layers.relu6 import ReLU6Layer
from paratrain.layers.swish import SwishLayer
from paratrain.proto import LayerParameter

__all__ = [
    "CupyAbsValLayer",
    "CupyBNLLLayer",
    "CupyClipLayer",
    "CupyELULayer",
    "CupyExpLayer",
    "CupyLogLayer",
    "CupyNeuronLayer",
    "CupyPowerLayer",
    "CupyReLU6Layer",
    "CupySigmoidLayer",
    "CupySwishLayer",
    "CupyTanHLayer",
    "CupyThresholdLayer",
    "Source",
]


class Source(enum.Enum):
    """What backward computes the slope from."""

    BOTTOM = "bottom"
    TOP = "top"
    KEPT = "kept"
    """A copy of the bottom that forward makes, since the top takes its place."""


class CupyNeuronLayer(CupyLayer):
    """y = f(x), dx = dy f'(v), where v is x or y: the kernels ``KERNEL_forward`` and ``KERNEL_backward`` of a family.

    Mixed in before the plain layer.
    """

    family: str = "activation"
    kernel: str
    """The name that the kernels begin with."""
    constants: tuple[float, ...] = ()
    """The numbers a, b and c of the formula, as far as it has them."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept_input = KeptInput(self)
        self._form = Form.of((0,), np.float32)

    def source(self, in_place: bool) -> Source:
        """Where backward finds v."""
        return Source.KEPT if in_place else Source.BOTTOM

    def backward_kernel(self, in_place: bool) -> str:
        """The name of the kernel that computes backward."""
        return f"{self.kernel}_backward"

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        self._form = form = self.writable(self.found(bottom[0]), top[0].data_memory, bottom[0].diff_memory)
        x = self.copies.read(bottom[0].data_memory, form)
        keeps = self.needs_backward and self.source(bottom[0] is top[0]) is Source.KEPT
        kept = self._kept_input.write(form) if keeps else None
        y = self.forms.write(top[0].data_memory, form)
        self._launch(f"{self.kernel}_forward", form, x, y, kept)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        form, in_place = self.gradient_form(self._form, bottom[0], top[0]), bottom[0] is top[0]
        source = self.source(in_place)
        if source is Source.KEPT:
            values = self._kept_input.read(form)
        else:
            values = self.copies.read((top if source is Source.TOP else bottom)[0].data_memory, form)
        dy = self.copies.read(top[0].diff_memory, form, "diff")
        dx = self.forms.write(bottom[0].diff_memory, form)
        self._launch(self.backward_kernel(in_place), form, values, dy, dx)

    def _launch(self, name: str, form: Form, *arrays: Any) -> None:
        constants = (*map(float, self.constants), 0.0, 0.0, 0.0)[:3]
        self.kernels(self.family, form.dtype).launch(name, form.count, *arrays, *constants, per_thread=4)


@register_layer("AbsVal", backend="cupy")
class CupyAbsValLayer(CupyNeuronLayer, AbsValLayer):
    """AbsVal by a kernel."""

    kernel = "absval"


@register_layer("Clip", backend="cupy")
class CupyClipLayer(CupyNeuronLayer, ClipLayer):
    """Clip by a kernel."""

    kernel = "clip"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._min, self._max)


@register_layer("ReLU6", backend="cupy")
class CupyReLU6Layer(CupyNeuronLayer, ReLU6Layer):
    """ReLU6 by a kernel. In place y lies in the same of its three parts as x."""

    kernel = "relu6"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._slope,)

    def source(self, in_place: bool) -> Source:
        return Source.BOTTOM


@register_layer("Threshold", backend="cupy")
class CupyThresholdLayer(CupyNeuronLayer, ThresholdLayer):
    """Threshold by a kernel."""

    kernel = "threshold"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self.parameter.threshold_param.threshold,)

    def source(self, in_place: bool) -> Source:
        return Source.BOTTOM

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        ThresholdLayer.backward(self, top, propagate_down, bottom)


@register_layer("Power", backend="cupy")
class CupyPowerLayer(CupyNeuronLayer, PowerLayer):
    """Power by a kernel; one that writes a constant where the power or the scale is 0."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        if self._factor:
            self.family, self.kernel = "functions", "power"
            self.constants = (self._power, self._scale, self._shift)
        else:
            self.kernel = "constant"
            self.constants = (1.0 if self._power == 0 else float(np.power(np.float64(self._shift), self._power)),)

    def source(self, in_place: bool) -> Source:
        return Source.KEPT if in_place and self._factor and self._power != 1 else Source.BOTTOM


class CupyFunctionLayer(CupyNeuronLayer):
    """A layer with kernels of the family "functions"."""

    family = "functions"


@register_layer("BNLL", backend="cupy")
class CupyBNLLLayer(CupyFunctionLayer, BNLLLayer):
    """BNLL by a kernel."""

    kernel = "bnll"


@register_layer("Swish", backend="cupy")
class CupySwishLayer(CupyFunctionLayer, SwishLayer):
    """Swish by a kernel, which works out the sigmoid once more in backward."""

    kernel = "swish"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._beta,)


class CupyFromTopLayer(CupyFunctionLayer):
    """One whose slope is told by what it made."""

    def source(self, in_place: bool) -> Source:
        return Source.TOP


@register_layer("Sigmoid", backend="cupy")
class CupySigmoidLayer(CupyFromTopLayer, SigmoidLayer):
    """Sigmoid by a kernel."""

    kernel = "sigmoid"


@register_layer("TanH", backend="cupy")
class CupyTanHLayer(CupyFromTopLayer, TanHLayer):
    """TanH by a kernel."""

    kernel = "tanh"


@register_layer("Exp", backend="cupy")
class CupyExpLayer(CupyFromTopLayer, ExpLayer):
    """Exp by a kernel."""

    kernel = "exp"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._inner, self._offset)


@register_layer("Log", backend="cupy")
class CupyLogLayer(CupyFunctionLayer, LogLayer):
    """Log by a kernel; in place the slope is told by the top."""

    kernel = "log"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._scale, self._shift, self._log_base)

    def source(self, in_place: bool) -> Source:
        return Source.TOP if in_place else Source.BOTTOM

    def backward_kernel(self, in_place: bool) -> str:
        return "log_from_top_backward" if in_place else "log_backward"


@register_layer("ELU", backend="cupy")
class CupyELULayer(CupyFunctionLayer, ELULayer):
    """ELU by a kernel; in place the slope is told by the top where that shows which x are positive."""

    kernel = "elu"

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.constants = (self._alpha, self._factor)

    def source(self, in_place: bool) -> Source:
        return Source.TOP if in_place and self._shows_signs else super().source(in_place)

    def backward_kernel(self, in_place: bool) -> str:
        return "elu_from_top_backward" if in_place and self._shows_signs else "elu_backward"
