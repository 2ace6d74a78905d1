"""Normalization channel by channel by oneDNN: BatchNorm, Scale and Bias, alone or as one, with a ReLU behind them."""

from __future__ import annotations

import functools

import numpy as np

from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import Argument, NormalizationFlags, PropKind
from paratrain.backends.onednn.primitive import Array, Descriptor, Primitive, aligned, best

__all__ = ["OneDnnNormalization"]

_GIVEN, _SCALE, _SHIFT, _RELU = (
    NormalizationFlags.USE_GIVEN_STATISTICS,
    NormalizationFlags.USE_SCALE,
    NormalizationFlags.USE_SHIFT,
    NormalizationFlags.FUSE_RELU,
)


class OneDnnNormalization:
    """y = s (x - mean) / sqrt(variance + eps) + b for each channel of (N, C, ...), and its gradients.

    ``flags`` say whether there are s and b (else 1 and 0), whether mean and variance are given (else they are the batch's,
    divided by N times the pixels), and whether y = max(y, 0) follows. With a given mean of 0, variance of 1 and ``eps`` of 0
    this is a Scale alone. ``layout`` is that of all images; plain ones are taken with the channels last. Per-channel
    arrays (C,) belong to the caller, who passes those that ``flags`` ask for. Keeps which values the ReLU let through.
    Raises UnsupportedError where oneDNN has no kernel.
    """

    def __init__(self, arranger: Arranger, layout: Layout, flags: NormalizationFlags, eps: float) -> None:
        if not 2 <= len(layout.shape) <= 5:
            raise UnsupportedError(f"batch_normalization: {len(layout.shape)} axes")
        self._arranger, self._flags, self._eps = arranger, flags, eps
        if layout.is_in_order and len(layout.shape) > 2:
            layout = Layout.channels_last(arranger.engine.library, layout.shape, layout.dtype)
        self.layout = layout
        self._hint = best(
            [
                Descriptor(
                    arranger.engine,
                    "batch_normalization_forward",
                    PropKind.FORWARD_TRAINING,
                    layout,
                    layout,
                    eps,
                    flags,
                )
            ]
        )
        if self._hint.implementation.endswith(":any"):  # met with a ReLU behind 20 channels that come last
            raise UnsupportedError(f"batch_normalization: oneDNN offers {self._hint.implementation}, plain loops")
        size_bytes = self._hint.layout(Argument.WORKSPACE).size_bytes
        self._workspace = [Argument.WORKSPACE] if size_bytes else []
        self._kept = [aligned(size_bytes)] if size_bytes else []
        given = [argument for flag, argument in ((_SCALE, Argument.SCALE), (_SHIFT, Argument.SHIFT)) if flags & flag]
        arguments = (Argument.SOURCE, Argument.DESTINATION, Argument.MEAN, Argument.VARIANCE)
        self._forward = Primitive(self._hint, *arguments, *given, *self._workspace)
        self._unused = aligned(layout.shape[1] * 4).view(np.float32)

    def forward(self, x: Array, y: Array, mean: Array, variance: Array, *factors: Array) -> None:
        """Write y, and unless they are given mean and variance. ``factors`` are s and b, those that there are."""
        self._forward.run(x, y, mean, variance, *factors, *self._kept)

    def backward(
        self,
        x: Array,
        dy: Array,
        dx: Array | None,
        mean: Array,
        variance: Array,
        scale: Array | None = None,
        scale_diff: Array | None = None,
        shift_diff: Array | None = None,
    ) -> None:
        """Write dx, which may be dy; for None it is not kept. Write ds and db where there are s and b.

        x, mean, variance and s are those of the last forward pass.
        """
        if dx is None:
            dx = self._arranger.lent(self.layout.size_bytes)
        arrays = [x, dy, dx, mean, variance]
        if self._flags & _SCALE:
            assert scale is not None
            arrays += [scale, self._unused if scale_diff is None else scale_diff]
        if self._flags & _SHIFT:
            arrays.append(self._unused if shift_diff is None else shift_diff)
        self._backward.run(*arrays, *self._kept)

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        built = [self._forward, *([self._backward] if "_backward" in self.__dict__ else [])]
        return [primitive.implementation for primitive in built]

    @functools.cached_property
    def _backward(self) -> Primitive:
        layout = self.layout
        descriptor = best(
            [
                Descriptor(
                    self._arranger.engine,
                    "batch_normalization_backward",
                    PropKind.BACKWARD,
                    layout,
                    layout,
                    layout,
                    self._eps,
                    self._flags,
                    self._hint,
                )
            ]
        )
        arguments = [
            Argument.SOURCE, Argument.DESTINATION_DIFF, Argument.SOURCE_DIFF, Argument.MEAN, Argument.VARIANCE,
        ]  # fmt: skip
        if self._flags & _SCALE:
            arguments += [Argument.SCALE, Argument.SCALE_DIFF]
        if self._flags & _SHIFT:
            arguments.append(Argument.SHIFT_DIFF)
        return Primitive(descriptor, *arguments, *self._workspace)
