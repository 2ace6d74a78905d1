"""BatchNorm, Scale and Bias on oneDNN, each alone or all as one.

Where a BatchNorm, a Scale and perhaps a ReLU follow each other in place, only the last values ever show, and one primitive
computes them: the BatchNorm layer forward, and the Scale layer backward, so that the gradients of its factors are there
once backward has passed it. Nets find such chains (``paratrain.net.fusion``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.backends.onednn.arranged import ArrangedArray
from paratrain.backends.onednn.names import NormalizationFlags
from paratrain.backends.onednn.normalization import OneDnnNormalization
from paratrain.backends.onednn.primitive import Array
from paratrain.blob import Blob, Memory
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.batch_norm import BatchNormLayer
from paratrain.layers.bias import BiasLayer
from paratrain.layers.normalization_chain import ChainHead, ChainScale
from paratrain.layers.onednn.channel_by_channel import FactorLayer, NormalizationLayer, float_array
from paratrain.layers.scale import ScaleLayer
from paratrain.proto import LayerParameter

__all__ = ["OneDnnBatchNormLayer", "OneDnnBiasLayer", "OneDnnScaleLayer"]

_GIVEN, _SCALE, _SHIFT, _RELU = (
    NormalizationFlags.USE_GIVEN_STATISTICS,
    NormalizationFlags.USE_SCALE,
    NormalizationFlags.USE_SHIFT,
    NormalizationFlags.FUSE_RELU,
)


@register_layer("Scale", backend="onednn")
class OneDnnScaleLayer(ChainScale, FactorLayer, ScaleLayer):
    """Scale with a learned factor per channel; other axes and two bottoms are the plain layer's."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.joined: OneDnnBatchNormLayer | None = None
        """The layer that has computed the next, or the last, forward pass along with its own."""
        self._is_applied = False
        self.handed: Memory | None = None
        """Where the top's diff lies in the backward pass that runs, if not in the top's own memory."""

    def join(self, layer: OneDnnBatchNormLayer) -> None:
        """Say that ``layer`` has computed this layer's next forward pass."""
        self.joined, self._is_applied = layer, True

    def leave(self, kernel: OneDnnNormalization | None, source: Array | None) -> None:
        """Say that backward is to go through this layer alone after all, from these values of the bottom."""
        self.joined, self.source = None, source
        self._kernel = kernel

    @property
    def flags(self) -> NormalizationFlags:
        return _SCALE | _SHIFT if self.parameter.scale_param.bias_term else _SCALE

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._is_applied:
            self._is_applied = False
            return
        self.joined = None
        self._kernel = kernel = self.choose_factor(bottom, top, self.parameter.scale_param.axis)
        if kernel is None:
            super().forward(bottom, top)
            return
        x, y = self.sides(kernel, bottom[0], top[0], self.needs_backward and self.param_propagate_down[0])
        kernel.forward(x, y, self._zeros, self._ones, *self.factors)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self.joined is not None:
            self.joined.backward_with(self, top[0], self.handed or top[0].diff_memory)
            self.handed = None
        elif self._kernel is None:
            super().backward(top, propagate_down, bottom)
        else:
            learns = self.param_propagate_down[0]
            self.factor_backward(self._kernel, top[0], bottom[0], propagate_down[0], learns)


@register_layer("Bias", backend="onednn")
class OneDnnBiasLayer(FactorLayer, BiasLayer):
    """Bias with a learned value per channel; other axes and two bottoms are the plain layer's."""

    @property
    def flags(self) -> NormalizationFlags:
        return _SHIFT

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._kernel = kernel = self.choose_factor(bottom, top, self.parameter.bias_param.axis)
        if kernel is None:
            super().forward(bottom, top)
            return
        x, y = self.sides(kernel, bottom[0], top[0], False)
        kernel.forward(x, y, self._zeros, self._ones, *self.factors)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self._kernel is None:
            super().backward(top, propagate_down, bottom)
        else:
            self.factor_backward(self._kernel, top[0], bottom[0], propagate_down[0], False)


@register_layer("BatchNorm", backend="onednn")
class OneDnnBatchNormLayer(ChainHead[OneDnnScaleLayer], NormalizationLayer, BatchNormLayer):
    """BatchNorm over the batch of one rank; one that is spread over the ranks is the plain layer's."""

    scale_type = OneDnnScaleLayer

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.is_joined = False
        """Whether the last forward pass has, and backward is to."""
        self._relu_is_joined = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        self._mean, self._variance = (float_array(self.blobs[0].count) for _ in range(2))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        own = _GIVEN if self._use_stored else NormalizationFlags(0)
        self.is_joined, kernel = False, None
        if self._use_stored or not self.context.normalizes_over_ranks:
            if self.applies_chain and self.scale is not None:
                factors = own | self.scale.flags
                relu = _RELU if self.relu is not None else NormalizationFlags(0)
                kernel = self.choose(bottom[0], top[0], factors | relu, self._eps)
                self._relu_is_joined = kernel is not None and bool(relu)
                if kernel is None and relu:
                    kernel = self.choose(bottom[0], top[0], factors, self._eps)
                self.is_joined = kernel is not None
            if kernel is None:
                kernel = self.choose(bottom[0], top[0], own, self._eps)
        self._kernel = kernel
        if kernel is None:
            super().forward(bottom, top)
            return
        if self._use_stored:
            self._read_statistics()
        factors_given: list[Array] = []
        if self.is_joined:
            assert self.scale is not None
            factors_given = self.scale.factors
            self.scale.join(self)
            self._bottom = bottom[0]
            if self.relu is not None and self._relu_is_joined:
                self.relu.is_applied = self.relu.leaves_backward = True
        x, y = self.sides(kernel, bottom[0], top[0], self.needs_backward)
        kernel.forward(x, y, self._mean, self._variance, *factors_given)
        if not self._use_stored:
            count = self._sizes[0] * self._sizes[2]
            self._update_statistics(self._mean, self._variance * (count / (count - 1) if count > 1 else 1.0))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self._kernel
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif not self.is_joined and propagate_down[0]:
            x = self.source_of(kernel, bottom[0])
            dy = self.copies.read(top[0].diff_memory, kernel.layout, "diff")
            kernel.backward(
                x, dy, self.arranger.write(bottom[0].diff_memory, kernel.layout), self._mean, self._variance
            )

    def backward_with(self, scale: OneDnnScaleLayer, top: Blob, top_diff: Memory) -> None:
        """Replace the diff of the top by that of the bottom of the whole chain; add to the gradients of the factors.

        ``top_diff`` is where the former lies: the top's diff, or another memory.
        """
        kernel = self._kernel
        assert kernel is not None
        dy = self.copies.read(top_diff, kernel.layout, "diff")
        dx = self.arranger.write(top.diff_memory, kernel.layout)
        scale.run_backward(kernel, self.source_of(kernel, self._bottom), dy, dx, self._mean, self._variance)

    def separate(self) -> None:
        if not self.is_joined or self.source is None:
            return
        joint, scale = self._kernel, self.scale
        assert joint is not None and scale is not None
        x, layout, flags = self.source_of(joint, self._bottom), joint.layout, _GIVEN | scale.flags
        own = _GIVEN if self._use_stored else NormalizationFlags(0)
        normalized, kernel = (
            ArrangedArray(self.arranger, layout),
            OneDnnNormalization(self.arranger, layout, own, self._eps),
        )
        given = kernel if self._use_stored else OneDnnNormalization(self.arranger, layout, _GIVEN, self._eps)
        given.forward(x, normalized.array, self._mean, self._variance)
        scale.leave(OneDnnNormalization(self.arranger, layout, flags, 0.0), normalized.array)
        self._kernel, self.source, self.is_joined = kernel, x, False
        if self.relu is not None:
            self.relu.leaves_backward = False

    def _read_statistics(self) -> None:
        total = float(self.blobs[2].data_memory.host()[0])
        for blob, out in zip(self.blobs, (self._mean, self._variance), strict=False):
            np.multiply(blob.data_memory.host()[: blob.count], 1 / total if total else 0.0, out=out)
