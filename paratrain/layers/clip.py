"""Clip and Threshold: values against limits."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import LayerParameter

__all__ = ["ClipLayer", "ThresholdLayer"]


@register_layer("Clip")
class ClipLayer(NeuronLayer):
    """y = x cut off at ``min`` and ``max``; dx = dy where min <= x <= max, else 0.

    Both limits must be given, min not above max. In place loses which x were cut off, so one byte for each value is
    kept from forward to backward.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        clip = parameter.clip_param
        if not (clip.HasField("min") and clip.HasField("max")):
            raise self.error("give both limits: clip_param { min: ... max: ... }")
        if not clip.min <= clip.max:
            raise self.error(f"clip_param.min is {clip.min:g}, above clip_param.max, {clip.max:g}; swap them")
        self._min, self._max = clip.min, clip.max
        self._inside, self._below = Buffer(self.xp), Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]), self.write(top[0])
        if bottom[0] is top[0] and self.needs_backward:
            self._note_inside(bottom[0])
        xp.maximum(x, self._min, out=y)
        xp.minimum(y, self._max, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            if bottom[0] is not top[0]:
                self._note_inside(bottom[0])
            inside = self._inside.get(bottom[0].shape, bool)
            self.xp.multiply(self.read_diff(top[0]), inside, out=self.write_diff(bottom[0]))

    def _note_inside(self, bottom: Blob) -> None:
        """Remember where the bottom lies within the limits."""
        xp, x = self.xp, self.read(bottom)
        inside, below = self._inside.get(x.shape, bool), self._below.get(x.shape, bool)
        xp.greater_equal(x, self._min, out=inside)
        xp.less_equal(x, self._max, out=below)
        xp.logical_and(inside, below, out=inside)


@register_layer("Threshold")
class ThresholdLayer(NeuronLayer):
    """y = 1 where x > ``threshold``, else 0; no gradient. Works in place."""

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]), self.write(top[0])
        self.xp.greater(x, self.parameter.threshold_param.threshold, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            raise self.error(f"has no gradient, but {self.bottom_name(0)} wants one; give propagate_down: false")
