"""Parameter: a learnable blob that other layers take as a bottom."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.learnable import add_learnable_blob
from paratrain.proto import FillerParameter

__all__ = ["ParameterLayer"]


@register_layer("Parameter")
class ParameterLayer(Layer):
    """No bottom; the top is blob 0, of the given ``shape``, zero until something sets it (weights, or a solver).

    The top's ``data`` is the blob's own memory. The blob's gradient is that of the top, added.
    """

    bottom_range = (0, 0)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.parameter_param
        if not parameter.HasField("shape"):
            raise self.error("give parameter_param { shape { dim: ... } }")
        if any(axis < 0 for axis in parameter.shape.dim):
            raise self.error(f"parameter_param.shape is {tuple(parameter.shape.dim)}; no axis may be negative")
        add_learnable_blob(self, tuple(parameter.shape.dim), self.context.dtype, FillerParameter())

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape_like(self.blobs[0])
        top[0].share_data(self.blobs[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if top[0].data_memory is not self.blobs[0].data_memory:  # a net has moved it
            top[0].share_data(self.blobs[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self.param_propagate_down[0]:
            diff = self.write_diff(self.blobs[0])
            diff += self.read_diff(top[0])
