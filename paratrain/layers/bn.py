"""BN and SyncBN: batch normalization with its own slope and bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.rank_sums import RankSums
from paratrain.proto import TEST, LayerParameter
from paratrain.proto.caffe_pb2 import BNParameter

__all__ = ["BNLayer", "SyncBNLayer"]

_SEGNET_FIELDS = ("scale_filler", "shift_filler", "bn_mode")
_FOUR_BLOB_FIELDS = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")
_SEGNET_EPS = 1e-9


@register_layer("BN")
class BNLayer(Layer):
    """y = slope h + bias, h = (x - mean) / sqrt(variance + eps), for every channel of (N, C, ...).

    Two forks have a BN, known apart by the fields of ``bn_param``:

    - yjxiong/caffe (TSN, PSPNet; also where ``bn_param`` is missing). Blobs (1, C): slope, bias, running mean, running
      variance. In TRAIN mean and variance (divided by the m = N times pixels values) are the batch's, and the running ones
      become ``momentum`` times themselves plus (1 - momentum) times the batch's. In TEST, and in TRAIN with ``frozen``,
      they are the running ones. With ``frozen`` no blob learns. The running variance starts as 0, as 1 with frozen.
    - SegNet (``scale_filler``, ``shift_filler``, ``bn_mode``). Blobs (1, C, 1, 1): slope and bias, no running ones; eps is
      1e-9. LEARN uses the batch's mean and variance in both phases and can hand them out as second and third top;
      INFERENCE leaves x as it is: y = slope x + bias, for blobs into which statistics have been worked in.

    Fillers that are not given fill with 0, in both: files say ``slope_filler { value: 1 }``.
    Gradients: dslope = sum of dy h, dbias = sum of dy; dx = slope (dy - dbias / m - h dslope / m) / sqrt(variance + eps),
    with stored statistics slope dy / sqrt(variance + eps). Works in place. Where ``context.normalizes_over_ranks``, the
    batch is that of all ranks, as in SyncBN.
    """

    top_range = (1, 3)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        bn = parameter.bn_param
        segnet = [field for field in _SEGNET_FIELDS if bn.HasField(field)]
        others = [field for field in _FOUR_BLOB_FIELDS if bn.HasField(field)]
        if segnet and others:
            raise self.error(
                f"bn_param mixes SegNet's {segnet[0]} with yjxiong's {others[0]}; keep the fields of one fork"
            )
        self._is_segnet = bool(segnet)
        self._is_identity = self._is_segnet and bn.bn_mode == BNParameter.INFERENCE
        self._uses_batch = not self._is_identity if segnet else context.phase != TEST and not bn.frozen
        self._eps = _SEGNET_EPS if segnet else bn.eps
        if not self._is_segnet:
            self.statistic_blobs = frozenset(range(4) if bn.frozen else (2, 3))
        self._kept, self._scratch = Buffer(self.xp), Buffer(self.xp)
        self._rank_sums = RankSums(self)
        self._mean: Any = None
        self._inverse_std: Any = None

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        bn, x = self.parameter.bn_param, bottom[0]
        if len(top) > 1 and not (self._is_segnet and self._uses_batch):
            raise self.error("only SegNet's BN in the mode LEARN has more than one top, the batch's mean and variance")
        if x.axis_count < 2:
            raise self.error(f"{self.bottom_name(0)} is {x.shape}; {self.type} needs (N, C, ...)", ShapeMismatchError)
        shape = (1, x.shape[1], 1, 1) if self._is_segnet else (1, x.shape[1])
        fillers = (bn.scale_filler, bn.shift_filler) if self._is_segnet else (bn.slope_filler, bn.bias_filler)
        for filler in fillers:
            add_learnable_blob(self, shape, x.dtype, filler)
        if not self._is_segnet:
            self.blobs += [Blob(shape, x.dtype), Blob(shape, x.dtype)]
            if bn.frozen:
                self.blobs[3].data[...] = 1

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        if len(shape) < 2 or shape[1] != self.blobs[0].count:
            raise self.error(
                f"{self.bottom_name(0)} has become {shape}; slope and bias {self.blobs[0].shape} are for "
                f"{self.blobs[0].count} channels",
                ShapeMismatchError,
            )
        self._sizes = (shape[0], shape[1], bottom[0].count_between(2))
        top[0].reshape_like(bottom[0])
        for blob in top[1:]:
            blob.reshape(1, shape[1], 1, 1)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        slope, bias = self.read(self.blobs[0]).reshape(-1, 1), self.read(self.blobs[1]).reshape(-1, 1)
        if not self._uses_batch:
            self._read_stored(x)
            if bottom[0] is top[0] and self.needs_backward and not self._is_frozen:
                self._kept.get(self._sizes, x.dtype)[...] = x
            factor = slope * self._inverse_std
            xp.multiply(x, factor, out=y)
            y += bias - factor * self._mean
            return
        normalized = self._kept.get(self._sizes, x.dtype) if self.needs_backward else y
        count, total = self.over_ranks(self._sizes[0] * self._sizes[2], x.sum(axis=(0, 2)))
        mean = total / max(count, 1)
        xp.subtract(x, mean[:, None], out=normalized)
        _, squares = self.over_ranks(0, xp.einsum("ncs,ncs->c", normalized, normalized))
        variance = squares / max(count, 1)
        for blob, value in zip(top[1:], (mean, variance), strict=False):
            self.write(blob)[...] = value.reshape(blob.shape)
        if not self._is_segnet:
            self._update_statistics(mean, variance)
        self._inverse_std = (1.0 / xp.sqrt(variance + self._eps))[:, None]
        normalized *= self._inverse_std
        xp.multiply(normalized, slope, out=y)
        y += bias

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        xp, top_diff = self.xp, self.read_diff(top[0]).reshape(self._sizes)
        in_place = bottom[0] is top[0]
        factor = self.read(self.blobs[0]).reshape(-1, 1) * self._inverse_std
        learns = [self.param_propagate_down[index] and index not in self.statistic_blobs for index in (0, 1)]
        if any(learns) or self._uses_batch:
            bias_diff = top_diff.sum(axis=(0, 2))
            slope_diff = self._slope_gradient(top_diff, bias_diff, bottom[0], in_place)
            for blob, value, learn in zip(self.blobs, (slope_diff, bias_diff), learns, strict=False):
                if learn:
                    diff = self.write_diff(blob).reshape(-1)
                    diff += value
        if not propagate_down[0]:
            return
        bottom_diff = self.write_diff(bottom[0]).reshape(self._sizes)
        if not self._uses_batch:
            xp.multiply(top_diff, factor, out=bottom_diff)
            return
        count, slope_sum, bias_sum = self.over_ranks(self._sizes[0] * self._sizes[2], slope_diff, bias_diff)
        common = self._scratch.get(self._sizes, top_diff.dtype) if in_place else bottom_diff
        xp.multiply(self._kept.get(self._sizes, top_diff.dtype), (slope_sum / max(count, 1))[:, None], out=common)
        common += (bias_sum / max(count, 1))[:, None]
        xp.subtract(top_diff, common, out=bottom_diff)
        bottom_diff *= factor

    def over_ranks(self, count: int, *sums: Any) -> list[Any]:
        """Return ``count`` and the sums (C,), each added up over the ranks that the batch is spread over."""
        return self._rank_sums.add(count, *sums) if self.is_over_ranks else [count, *sums]

    @property
    def is_over_ranks(self) -> bool:
        """Whether the batch whose mean and variance are taken is that of all ranks."""
        return self.context.normalizes_over_ranks

    @property
    def _is_frozen(self) -> bool:
        return self.parameter.bn_param.frozen

    def _read_stored(self, x: Any) -> None:
        """Set mean and inverse standard deviation (C, 1) to the stored ones."""
        if self._is_identity:
            self._mean = self.xp.zeros((self._sizes[1], 1), x.dtype)
            self._inverse_std = self.xp.ones((self._sizes[1], 1), x.dtype)
        else:
            self._mean = self.read(self.blobs[2]).reshape(-1, 1).copy()
            self._inverse_std = 1.0 / self.xp.sqrt(self.read(self.blobs[3]).reshape(-1, 1) + self._eps)

    def _slope_gradient(self, top_diff: Any, bias_diff: Any, bottom: Blob, in_place: bool) -> Any:
        """Return the sum of dy h (C,)."""
        kept = self._uses_batch or in_place
        values = self._kept.get(self._sizes, top_diff.dtype) if kept else self.read(bottom).reshape(self._sizes)
        product = self.xp.einsum("ncs,ncs->c", top_diff, values)
        if self._uses_batch:
            return product
        return (product - bias_diff * self._mean[:, 0]) * self._inverse_std[:, 0]

    def _update_statistics(self, *values: Any) -> None:
        momentum = self.parameter.bn_param.momentum
        for blob, value in zip(self.blobs[2:], values, strict=True):
            stored = self.write(blob).reshape(-1)
            stored *= momentum
            stored += value * (1 - momentum)


@register_layer("SyncBN")
class SyncBNLayer(BNLayer):
    """BN, in the four-blob form, with mean and variance over the batches of all ranks: n ranks of batch b give the
    statistics, outputs and gradients that one rank gives for the n batches together.

    In TRAIN a forward pass adds up C + 1 and then C numbers over the ranks, a backward pass 2 C + 1, in float64 by
    ``context.sum_over_ranks``; so all ranks must run the layer together. Gradients of slope and bias are the rank's own
    share, to be added up with those of all other parameters. Source: yjxiong/caffe.
    """

    top_range = (1, 1)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        if self._is_segnet:
            raise self.error(
                "bn_param has fields of SegNet's BN, which has no SyncBN; use slope_filler and bias_filler"
            )

    @property
    def is_over_ranks(self) -> bool:
        """Always."""
        return True
