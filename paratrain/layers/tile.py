"""Tile: copies side by side."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place

__all__ = ["TileLayer"]


@register_layer("Tile")
class TileLayer(Layer):
    """``tiles`` copies of the bottom, one after the other along ``axis``: (outer, n, inner) to (outer, tiles n, inner).

    dx = sum of dy over the copies.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._tiles = self.parameter.tile_param.tiles
        if self._tiles < 1:
            raise self.error(f"tile_param.tiles is {self._tiles}; give how many copies there shall be, at least 1")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        axis = canonical_axis(self, bottom[0], self.parameter.tile_param.axis, "tile_param.axis")
        top[0].reshape(*shape[:axis], shape[axis] * self._tiles, *shape[axis + 1 :])
        self._outer, self._run = bottom[0].count_between(0, axis), bottom[0].count_between(axis)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        copies = self.write(top[0]).reshape(self._outer, self._tiles, self._run)
        copies[...] = self.read(bottom[0]).reshape(self._outer, 1, self._run)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            diffs = self.read_diff(top[0]).reshape(self._outer, self._tiles, self._run)
            self.xp.sum(diffs, axis=1, out=self.write_diff(bottom[0]).reshape(self._outer, self._run))
