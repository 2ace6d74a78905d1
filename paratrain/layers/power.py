"""Power: y = (shift + scale x)^power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["PowerLayer"]


@register_layer("Power")
class PowerLayer(NeuronLayer):
    """y = (shift + scale x)^power; dx = dy power scale (shift + scale x)^(power - 1).

    Where power or scale is 0, y is constant (1 for power 0, else shift^power) and dx is 0. In place, the input is kept
    for backward unless power is 0 or 1. Powers that do not exist (of negative numbers, say) are not numbers, silently.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        power = parameter.power_param
        self._power, self._scale, self._shift = power.power, power.scale, power.shift
        self._factor = self._power * self._scale
        self._kept = Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]), self.write(top[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._factor == 0:
                y[...] = 1.0 if self._power == 0 else float(np.power(np.float64(self._shift), self._power))
                return
            if self.needs_backward and self._keeps_input(bottom, top):
                self._kept.get(x.shape, x.dtype)[...] = x
            self._affine(x, y)
            self._raise(y, self._power)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, top_diff, bottom_diff = self.xp, self.read_diff(top[0]), self.write_diff(bottom[0])
        if self._factor == 0:
            bottom_diff[...] = 0
        elif self._power == 1:
            xp.multiply(top_diff, self._factor, out=bottom_diff)
        else:
            x = self.read(bottom[0])
            if self._keeps_input(bottom, top):
                x = self._kept.get(x.shape, x.dtype)
            slope = self.scratch.get(x.shape, x.dtype)
            with np.errstate(divide="ignore", invalid="ignore"):
                self._affine(x, slope)
                self._raise(slope, self._power - 1)
                slope *= self._factor
                xp.multiply(top_diff, slope, out=bottom_diff)

    def _keeps_input(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> bool:
        return bottom[0] is top[0] and self._power != 1

    def _affine(self, x: Any, y: Any) -> None:
        """y = shift + scale x."""
        self.xp.multiply(x, self._scale, out=y)
        if self._shift != 0:
            y += self._shift

    def _raise(self, y: Any, power: float) -> None:
        """y = y^power."""
        if power == 2:
            self.xp.multiply(y, y, out=y)
        elif power == 0.5:
            self.xp.sqrt(y, out=y)
        elif power == -1:
            self.xp.reciprocal(y, out=y)
        elif power != 1:
            self.xp.power(y, power, out=y)
