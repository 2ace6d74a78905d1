"""Exp and Log: powers of a base, and logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["ExpLayer", "LogLayer"]


@register_layer("Exp")
class ExpLayer(NeuronLayer):
    """y = base^(shift + scale x); dx = dy y scale ln(base). The default ``base``, -1, stands for e. Works in place."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        exp = parameter.exp_param
        if exp.base != -1 and not 0 < exp.base < math.inf:
            raise self.error(f"exp_param.base is {exp.base:g}; it must be above 0, or -1 for e")
        log_base = 1.0 if exp.base == -1 else math.log(exp.base)
        self._inner = exp.scale * log_base
        self._offset = exp.shift * log_base

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        y = self.write(top[0])
        self.xp.multiply(self.read(bottom[0]), self._inner, out=y)
        if self._offset != 0:
            y += self._offset
        self.xp.exp(y, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            y = self.read(top[0])
            slope = self.scratch.get(y.shape, y.dtype)
            self.xp.multiply(y, self._inner, out=slope)
            self.xp.multiply(self.read_diff(top[0]), slope, out=self.write_diff(bottom[0]))


@register_layer("Log")
class LogLayer(NeuronLayer):
    """y = log to ``base`` of (shift + scale x); dx = dy scale / (ln(base) (shift + scale x)).

    The default ``base``, -1, stands for e. In place, shift + scale x is found again as base^y. The logarithm of 0 is
    -inf and of less not a number, silently.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        log = parameter.log_param
        if log.base != -1 and (not 0 < log.base < math.inf or log.base == 1):
            raise self.error(f"log_param.base is {log.base:g}; it must be above 0 and not 1, or -1 for e")
        self._scale, self._shift = log.scale, log.shift
        self._log_base = 1.0 if log.base == -1 else math.log(log.base)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if self._scale != 1 or bottom[0] is not top[0]:
            xp.multiply(x, self._scale, out=y)
        if self._shift != 0:
            y += self._shift
        with np.errstate(divide="ignore", invalid="ignore"):
            xp.log(y, out=y)
        if self._log_base != 1:
            y *= 1.0 / self._log_base

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, top_diff, bottom_diff = self.xp, self.read_diff(top[0]), self.write_diff(bottom[0])
        slope = self.scratch.get(top_diff.shape, top_diff.dtype)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if bottom[0] is top[0]:
                xp.multiply(self.read(top[0]), -self._log_base, out=slope)
                xp.exp(slope, out=slope)
            else:
                xp.multiply(self.read(bottom[0]), self._scale, out=slope)
                slope += self._shift
                xp.reciprocal(slope, out=slope)
            slope *= self._scale / self._log_base
            xp.multiply(top_diff, slope, out=bottom_diff)
