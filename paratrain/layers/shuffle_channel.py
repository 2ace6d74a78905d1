"""ShuffleChannel: mix the channels of groups."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place

__all__ = ["ShuffleChannelLayer"]


@register_layer("ShuffleChannel")
class ShuffleChannelLayer(Layer):
    """The C channels of (N, C, ...), seen as (group, C / group), are transposed to (C / group, group).

    So channel i of group g comes to place ``i * group + g``; the gradient goes the same way back.
    Source: Zhang and others, "ShuffleNet", 2017, and the layer of that name in the forks that train it.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        blob, groups = bottom[0], self.parameter.shuffle_channel_param.group
        if blob.axis_count < 2:
            raise self.error(f"{self.bottom_name(0)} is {blob.shape}; it needs (N, C, ...)", ShapeMismatchError)
        channels = blob.shape[1]
        if groups < 1 or channels % groups:
            raise self.error(
                f"the {channels} channels of {self.bottom_name(0)} {blob.shape} cannot be cut into group: {groups} equal parts",
                ShapeMismatchError,
            )
        self._sizes = (blob.shape[0], groups, channels // groups, blob.count_between(2))
        self._shuffled = (self._sizes[0], self._sizes[2], groups, self._sizes[3])
        top[0].reshape_like(blob)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.write(top[0]).reshape(self._shuffled)[...] = self.read(bottom[0]).reshape(self._sizes).swapaxes(1, 2)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            shuffled = self.read_diff(top[0]).reshape(self._shuffled)
            self.write_diff(bottom[0]).reshape(self._sizes)[...] = shuffled.swapaxes(1, 2)
