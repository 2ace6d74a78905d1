"""What BatchNorm, Scale and Bias on oneDNN share: they all are normalizations channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.onednn.arranged import ArrangedArray
from paratrain.backends.onednn.names import NormalizationFlags
from paratrain.backends.onednn.normalization import OneDnnNormalization
from paratrain.backends.onednn.primitive import Array, aligned
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext
from paratrain.layers.onednn.arrays import owns_memory
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.proto import LayerParameter

__all__ = ["FactorLayer", "NormalizationLayer", "float_array"]


def float_array(count: int) -> Any:
    """Zeros, one for each channel."""
    return aligned(count * 4).view(np.float32)


class NormalizationLayer(OneDnnLayer[OneDnnNormalization]):
    """What the three share: kernels by layout, and the bottom's values kept for backward without a copy."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._spare: ArrangedArray | None = None
        self.source: Array | None = None
        """The values from which the last forward pass has computed, in the kernel's layout; None where they are the bottom's."""

    def choose(self, bottom: Blob, top: Blob, flags: NormalizationFlags, eps: float) -> OneDnnNormalization | None:
        """Return the kernel for the layout of the bottom; None where oneDNN has nothing fit."""
        memories = (bottom.data_memory, bottom.diff_memory, top.data_memory, top.diff_memory)
        if not bottom.count or bottom.axis_count < 2 or not owns_memory(*memories):
            return None
        layout = self.layout_of(bottom.data_memory, bottom.shape)
        return self.kernel(
            (layout, flags),
            lambda: self.in_dtype(layout, lambda found: OneDnnNormalization(self.arranger, found, flags, eps)),
        )

    def sides(self, kernel: OneDnnNormalization, bottom: Blob, top: Blob, keeps: bool) -> tuple[Array, Array]:
        """Return where to read the bottom and where to write the top. In place with ``keeps``, the bottom's buffer stays with
        this layer until the next forward pass, and the blob gets the one that this layer has had before; plain arrays are copied.
        """
        memory: Any = top.data_memory
        x = self.copies.read(bottom.data_memory, kernel.layout, "source")
        self.source = None
        if bottom is top and keeps:
            self.source = x
            kept = memory.kept_arrangement
            if kept is not None and kept.array is x:
                spare = self._spare
                if spare is None or spare.layout != kernel.layout:
                    spare = ArrangedArray(self.arranger, kernel.layout)
                memory.arrange(spare)
                self._spare = kept
        y = self.arranger.write(memory, kernel.layout)
        if self.source is y:  # a plain array, which has to stay where it is: (N, C), or one pixel
            spare = self._spare
            if spare is None or spare.layout != kernel.layout:
                self._spare = spare = ArrangedArray(self.arranger, kernel.layout)
            self.source = x = spare.array.view(np.float32)
            np.copyto(x, y[: x.size])
        return x, y

    def source_of(self, kernel: OneDnnNormalization, bottom: Blob) -> Array:
        """The values from which the last forward pass has computed."""
        return self.copies.read(bottom.data_memory, kernel.layout, "source") if self.source is None else self.source


class FactorLayer(NormalizationLayer):
    """Scale and Bias: normalization with mean 0 and variance 1."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        channels = bottom[0].shape[1] if bottom[0].axis_count > 1 else 0
        self._zeros, self._ones = float_array(channels), float_array(channels)
        self._ones[:] = 1
        self._diffs = [float_array(channels) for _ in self.blobs]

    def choose_factor(self, bottom: Sequence[Blob], top: Sequence[Blob], axis: int) -> OneDnnNormalization | None:
        """Return the kernel where the factors are learned and one for each channel of (N, C, ...)."""
        x = bottom[0]
        if len(bottom) > 1 or x.axis_count < 2 or axis % x.axis_count != 1 or self.blobs[0].shape != x.shape[1:2]:
            return None
        if len(self._zeros) != x.shape[1]:
            return None
        return self.choose(x, top[0], NormalizationFlags.USE_GIVEN_STATISTICS | self.flags, 0.0)

    @property
    def flags(self) -> NormalizationFlags:
        """Which factors there are."""
        raise NotImplementedError

    @property
    def factors(self) -> list[Array]:
        """The flat arrays of the factors."""
        return [blob.data_memory.host() for blob in self.blobs]

    def run_backward(
        self, kernel: OneDnnNormalization, x: Array, dy: Array, dx: Array | None, mean: Array, variance: Array
    ) -> None:
        """Run the kernel backward and add to the gradients of the factors that learn."""
        scale = self.factors[0] if self.flags & NormalizationFlags.USE_SCALE else None
        diffs = [*([None] if scale is None else []), *self._diffs, None][:2]
        kernel.backward(x, dy, dx, mean, variance, scale, *diffs)
        for blob, diff, learns in zip(self.blobs, self._diffs, self.param_propagate_down, strict=True):
            if learns:
                total = blob.diff_memory.mutable_host()[: blob.count]
                np.add(total, diff, out=total)

    def factor_backward(
        self, kernel: OneDnnNormalization, top: Blob, bottom: Blob, down: bool, needs_source: bool
    ) -> None:
        """The backward pass of the layer alone."""
        dy = self.copies.read(top.diff_memory, kernel.layout, "diff")
        x = self.source_of(kernel, bottom) if needs_source else dy
        dx = self.arranger.write(bottom.diff_memory, kernel.layout) if down else None
        self.run_backward(kernel, x, dy, dx, self._zeros, self._ones)
