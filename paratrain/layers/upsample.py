"""Upsample: larger images, by the indices of a max pooling or by repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place

__all__ = ["UpsampleLayer"]


@register_layer("Upsample")
class UpsampleLayer(Layer):
    """With two bottoms: each value of bottom[0] (N, C, h, w) goes to the place that bottom[1], of the same shape, names for
    it: an index y * width + x, as the second top of a MAX pooling gives. All else is 0; where two values name one place
    the later one stays. dx is the dy of the place that was named.

    The top (N, C, height, width) is ``upsample_h`` x ``upsample_w``, else h times ``scale_h`` (or ``scale``) less 1 with
    ``pad_out_h``, likewise for the width. Source: Badrinarayanan and others, "SegNet", 2015.

    With one bottom: each value is repeated over ``scale_h`` x ``scale_w`` (or ``scale`` squared) pixels; dx is the sum of
    their dy. Source: the forks of Caffe that run YOLO.
    """

    bottom_range = (1, 2)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.upsample_param
        given = {
            name for name in ("scale", "scale_h", "scale_w", "upsample_h", "upsample_w") if parameter.HasField(name)
        }
        for kind in ("scale", "upsample"):
            if len(given & {f"{kind}_h", f"{kind}_w"}) == 1:
                raise self.error(f"upsample_param gives one of {kind}_h and {kind}_w; give both or neither")
        self._fixed = (parameter.upsample_h, parameter.upsample_w) if "upsample_h" in given else None
        if self._fixed is None and {"scale", "scale_h"} <= given:
            raise self.error("upsample_param gives scale as well as scale_h and scale_w; give one of them")
        by_axis = "scale_h" in given
        self._scale = (parameter.scale_h, parameter.scale_w) if by_axis else (parameter.scale, parameter.scale)
        self._less = (int(parameter.pad_out_h), int(parameter.pad_out_w))
        if len(bottom) == 1:
            if self._fixed is not None or any(self._less):
                raise self.error(
                    "upsample_h, upsample_w, pad_out_h and pad_out_w need a second bottom, the pooling's mask"
                )
            if min(self._scale) < 1:
                raise self.error(f"the scale is {self._scale}; it must be at least 1")
        elif self._fixed is not None:
            if min(self._fixed) < 2:
                raise self.error(f"upsample_h and upsample_w are {self._fixed}; both must be at least 2")
        elif min(self._scale) < 2:
            raise self.error(f"the scale is {self._scale}; it must be at least 2")
        elif any(less and scale != 2 for less, scale in zip(self._less, self._scale, strict=True)):
            raise self.error(
                f"pad_out_h and pad_out_w need a scale of 2, but it is {self._scale}; use upsample_h and upsample_w"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.error(
                f"{self.bottom_name(0)} is {shape}; Upsample takes 4 axes (N, C, H, W)", ShapeMismatchError
            )
        if len(bottom) > 1 and bottom[1].shape != shape:
            raise self.error(
                f"{self.bottom_name(0)} {shape} and {self.bottom_name(1)} {bottom[1].shape}, the mask, "
                "must have the same shape",
                ShapeMismatchError,
            )
        scaled = tuple(n * s - less for n, s, less in zip(shape[2:], self._scale, self._less, strict=True))
        self._output = self._fixed or (scaled[0], scaled[1])
        top[0].reshape(*shape[:2], *self._output)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]), self.write(top[0])
        if len(bottom) == 1:
            self._blocks(y)[...] = x[:, :, :, None, :, None]
            return
        self._places = self._read_mask(bottom[1])
        y[...] = 0
        self.backend.put_at(y.reshape(-1), self._places, x.reshape(-1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if len(bottom) > 1 and propagate_down[1]:
            raise self.error(f"has no gradient by {self.bottom_name(1)}, the mask; remove its propagate_down")
        if not propagate_down[0]:
            return
        top_diff, bottom_diff = self.read_diff(top[0]), self.write_diff(bottom[0])
        if len(bottom) == 1:
            self._blocks(top_diff).sum(axis=(3, 5), out=bottom_diff)
        else:
            self.xp.take(top_diff.reshape(-1), self._places, out=bottom_diff.reshape(-1))

    def _blocks(self, array: Any) -> Any:
        """See the top as (N, C, h, scale_h, w, scale_w)."""
        (batch, channels, height, width), (down, right) = array.shape, self._scale
        return array.reshape(batch, channels, height // down, down, width // right, right)

    def _read_mask(self, blob: Blob) -> Any:
        """Return, for every value of the bottom, its place in the flat top."""
        mask, pixels = self.read(blob), self._output[0] * self._output[1]
        good = (mask > -1) & (mask < pixels)  # False for NaN
        if not bool(good.all()):
            values = blob.read_data(None).reshape(-1)
            first = int(np.argmin((values > -1) & (values < pixels)))
            place = tuple(int(index) for index in np.unravel_index(first, blob.shape))
            raise self.error(
                f"{self.bottom_name(1)}: the index {values[first]:g} at {place} is outside the top's "
                f"{self._output[0]} x {self._output[1]} pixels; the size must be that of the pooling's own bottom "
                "(see upsample_h and upsample_w)"
            )
        planes = self.xp.arange(blob.shape[0] * blob.shape[1]) * pixels
        rows = mask.reshape(len(planes), blob.count_between(2))
        return (rows.astype(np.int64) + planes[:, None]).reshape(-1)
