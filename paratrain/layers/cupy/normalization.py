"""BatchNorm, Scale and Bias on the GPU, each alone or all as one with the ReLU that follows (see normalization_chain.py)."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from paratrain.backends.cupy.normalization import Factors
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.batch_norm import BatchNormLayer
from paratrain.layers.bias import BiasLayer
from paratrain.layers.cupy.channel_by_channel import ChannelLayer
from paratrain.layers.normalization_chain import ChainHead, ChainScale
from paratrain.layers.scale import ScaleLayer
from paratrain.proto import LayerParameter

__all__ = ["CupyBatchNormLayer", "CupyBiasLayer", "CupyScaleLayer"]


@register_layer("Scale", backend="cupy")
class CupyScaleLayer(ChainScale, ChannelLayer, ScaleLayer):
    """Scale with a learned factor for each channel; other axes and two bottoms are the plain layer's."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.joined: CupyBatchNormLayer | None = None
        """The layer that has computed the next, or the last, forward pass along with its own."""
        self._is_applied = False

    def join(self, layer: CupyBatchNormLayer) -> None:
        """Say that ``layer`` has computed this layer's next forward pass."""
        self.joined, self._is_applied = weakref.proxy(layer), True  # it has this layer: no cycle

    @property
    def factors(self) -> tuple[Any, Any | None]:
        """Scale and shift on the GPU, for reading."""
        scale, *shift = (blob.data_memory.device(self.forms.device)[: blob.count] for blob in self.blobs)
        return scale, shift[0] if shift else None

    @property
    def learns(self) -> bool:
        """Whether gradients of scale or shift are wanted."""
        return any(self.param_propagate_down)

    def diffs(self) -> dict[str, tuple[Any, bool] | None]:
        """Where the gradients of scale and shift go, and whether they are added, for :meth:`Normalization.sums`."""
        found = [self.diff_of(index) for index in range(len(self.blobs))]
        return {"scale_diff": found[0], "shift_diff": found[1] if len(found) > 1 else None}

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._is_applied:
            self._is_applied, self.is_capturable = False, True
            return
        self.joined = None
        kernel = self.choose_by_channel(bottom, top, self.parameter.scale_param.axis)
        if kernel is None:
            super().forward(bottom, top)
            return
        x, y = self.sides(kernel, bottom[0], top[0], self.needs_backward and self.param_propagate_down[0])
        scale, shift = self.factors
        kernel.forward(x, y, Factors(scale=scale, shift=shift), self.kept)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest
        if self.joined is not None:
            self.joined.backward_with(self, top[0])
        elif kernel is None:
            super().backward(top, propagate_down, bottom)
        else:
            dy = self.copies.read(top[0].diff_memory, kernel.form, "diff")
            factors = Factors(scale=self.factors[0])
            if self.learns:
                x = self.source_of(kernel, bottom[0]) if self.param_propagate_down[0] else None
                kernel.sums(x, dy, factors, **self.diffs())
            if propagate_down[0]:
                kernel.backward(None, dy, self.forms.write(bottom[0].diff_memory, kernel.form), factors)


@register_layer("Bias", backend="cupy")
class CupyBiasLayer(ChannelLayer, BiasLayer):
    """Bias with a learned value for each channel; other axes and two bottoms are the plain layer's."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self.choose_by_channel(bottom, top, self.parameter.bias_param.axis)
        if kernel is None:
            super().forward(bottom, top)
            return
        x, y = self.sides(kernel, bottom[0], top[0], False)
        shift = self.blobs[0].data_memory.device(self.forms.device)[: self.blobs[0].count]
        kernel.forward(x, y, Factors(shift=shift))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest
        if kernel is None:
            super().backward(top, propagate_down, bottom)
            return
        dy = self.copies.read(top[0].diff_memory, kernel.form, "diff")
        if self.param_propagate_down[0]:
            kernel.sums(None, dy, Factors(), shift_diff=self.diff_of(0))
        if propagate_down[0] and bottom[0] is not top[0]:
            kernel.backward(None, dy, self.forms.write(bottom[0].diff_memory, kernel.form), Factors())


@register_layer("BatchNorm", backend="cupy")
class CupyBatchNormLayer(ChainHead[CupyScaleLayer], ChannelLayer, BatchNormLayer):
    """BatchNorm over the batch of one rank; one that is spread over the ranks is the plain layer's."""

    scale_type = CupyScaleLayer

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.is_joined = False
        """Whether the last forward pass has computed the Scale too, and backward runs there."""
        self._rectifies = False

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = None
        if self._use_stored or not self.context.normalizes_over_ranks:
            kernel = self.choose(bottom[0], top[0])
        self.latest, self.is_capturable = kernel, kernel is not None
        self.is_joined = kernel is not None and self.applies_chain and self.scale is not None
        self._rectifies = self.is_joined and self.relu is not None
        if kernel is None:
            super().forward(bottom, top)
            return
        device = self.forms.device
        mean, inverse_std, *_ = self._statistics()
        keeps = self.needs_backward and (self.is_joined or not self._use_stored)
        x, y = self.sides(kernel, bottom[0], top[0], keeps)
        if self._use_stored:
            stored = [blob.data_memory.device(device) for blob in self.blobs]
            kernel.stored_moments(self._eps, (stored[0], stored[1], stored[2]), mean, inverse_std)
        else:
            running = [blob.data_memory.mutable_device(device) for blob in self.blobs]
            renewed = running[0], running[1], running[2]
            kernel.moments(x, self._eps, self._fraction, mean, inverse_std, renewed)
        if self.is_joined:
            assert self.scale is not None
            self.scale.join(self)
            self._bottom = bottom[0]
            if self._rectifies:
                assert self.relu is not None
                self.relu.is_applied = self.relu.leaves_backward = True
        kernel.forward(x, y, self._factors(), self.kept)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.latest
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif not self.is_joined and propagate_down[0]:
            factors = self._factors()
            dy = self.copies.read(top[0].diff_memory, kernel.form, "diff")
            x, means, slopes = None, None, None
            if not self._use_stored:
                x, (_, _, means, slopes) = self.source_of(kernel, bottom[0]), self._statistics()
                kernel.sums(x, dy, factors, means=means, slopes=slopes)
            kernel.backward(x, dy, self.forms.write(bottom[0].diff_memory, kernel.form), factors, means, slopes)

    def backward_with(self, scale: CupyScaleLayer, top: Blob) -> None:
        """Replace the diff of the top, that of the whole chain, by that of the bottom; write the gradients of the factors."""
        kernel, factors = self.latest, self._factors()
        assert kernel is not None
        x, dy = self.source_of(kernel, self._bottom), self.copies.read(top.diff_memory, kernel.form, "diff")
        _, _, means, slopes = self._statistics() if not self._use_stored else (None,) * 4
        if scale.learns or not self._use_stored:
            kernel.sums(x, dy, factors, means=means, slopes=slopes, **scale.diffs())
        kernel.backward(x, dy, self.forms.write(top.diff_memory, kernel.form), factors, means, slopes)

    def separate(self) -> None:
        if not self.is_joined:
            return
        kernel, scale, alone = self.latest, self.scale, Factors(*self._statistics()[:2])
        assert kernel is not None and scale is not None
        if self.needs_backward:
            normalized = self.forms.device.empty(kernel.form.count, kernel.form.dtype)
            kernel.forward(self.source_of(kernel, self._bottom), normalized, alone)
            scale.joined, scale.latest, scale.source = None, kernel, normalized
        self.is_joined = self._rectifies = False
        if self.relu is not None:
            self.relu.leaves_backward = False

    def _factors(self) -> Factors:
        """What the last forward pass has computed with."""
        mean, inverse_std, *_ = self._statistics()
        if not self.is_joined:
            return Factors(mean, inverse_std)
        assert self.scale is not None
        return Factors(mean, inverse_std, *self.scale.factors, self._rectifies)

    def _statistics(self) -> tuple[Any, Any, Any, Any]:
        """For each channel: mean, 1 / standard deviation, and in backward the mean of the gradient and its slope."""
        count = self.blobs[0].count
        both = self._channel_values.get((4, count), self.blobs[0].dtype)
        return both[0], both[1], both[2], both[3]
