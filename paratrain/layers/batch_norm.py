"""BatchNorm: each channel gets mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.rank_sums import RankSums
from paratrain.proto import TEST, LayerParameter

__all__ = ["BatchNormLayer"]


@register_layer("BatchNorm")
class BatchNormLayer(Layer):
    """y = (x - mean) / sqrt(variance + eps) for every channel of (N, C, ...); scale and bias are a Scale layer's.

    Mean and variance (divided by m = N times the pixels) are the batch's in TRAIN and the stored ones in TEST, or as
    ``use_global_stats`` says. ``self.blobs`` hold running sums, which every forward pass on batch statistics renews,
    f being ``moving_average_fraction``: blob 0 (C,) = f blob 0 + mean; blob 1 (C,) = f blob 1 + variance m / (m - 1);
    blob 2 (1,) = f blob 2 + 1. The stored mean is blob 0 / blob 2, the stored variance blob 1 / blob 2, both 0 while
    blob 2 is. They are statistics: no solver updates them.

    Gradient with batch statistics: dx = (dy - mean of dy - y mean of (dy y)) / sqrt(variance + eps); with stored ones
    dx = dy / sqrt(variance + eps). Works in place; x - mean is kept for backward, where there is one.

    Where ``context.normalizes_over_ranks``, the batch is that of all ranks, and so are m, the means and the running sums:
    n ranks of batch b give what one rank gives for the n batches together. A forward pass then adds up C + 1 and C + 1
    numbers over the ranks, a backward pass 2 C + 1.
    Source: Ioffe, Szegedy, "Batch normalization", 2015, and Caffe's definition.
    """

    statistic_blobs = frozenset({0, 1, 2})

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:
        """Not where batches of a TEST net renew the running statistics, each in its turn."""
        batch_norm = parameter.batch_norm_param
        return batch_norm.use_global_stats or not batch_norm.HasField("use_global_stats")

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        batch_norm = parameter.batch_norm_param
        self._refuse_fork_fields()
        given = batch_norm.HasField("use_global_stats")
        self._use_stored = batch_norm.use_global_stats if given else context.phase == TEST
        self._fraction = batch_norm.moving_average_fraction
        self._eps = batch_norm.eps
        self._centred, self._scratch = Buffer(self.xp), Buffer(self.xp)
        self._rank_sums = RankSums(self)
        self._inverse_std: Any = None

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if not bottom[0].shape:
            raise self.error(f"{self.bottom_name(0)} has no axes; BatchNorm needs at least (N,)", ShapeMismatchError)
        for index, spec in enumerate(self.parameter.param):
            if spec.lr_mult != 0:
                raise self.error(
                    f"param {index} has lr_mult {spec.lr_mult:g}, but these blobs are statistics that are not learned; "
                    "give lr_mult: 0 or remove param"
                )
        channels = self._sizes_of(bottom[0])[1]
        self.blobs[:] = [Blob(shape, bottom[0].dtype) for shape in ((channels,), (channels,), (1,))]

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._sizes = self._sizes_of(bottom[0])
        if self._sizes[1] != self.blobs[0].count:
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} has {self._sizes[1]} channels; "
                f"the statistics {self.blobs[0].shape} are for {self.blobs[0].count}",
                ShapeMismatchError,
            )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        if self._use_stored:
            weight = float(self.blobs[2].read_data(None)[0])
            factor = 1.0 / weight if weight != 0 else 0.0
            mean, variance = self.read(self.blobs[0]) * factor, self.read(self.blobs[1]) * factor
            centred = y
            xp.subtract(x, mean[:, None], out=centred)
        else:
            count, total = self._over_ranks(self._sizes[0] * self._sizes[2], x.sum(axis=(0, 2)))
            count = max(count, 1)
            mean = total / count
            centred = self._centred.get(self._sizes, x.dtype) if self.needs_backward else y
            xp.subtract(x, mean[:, None], out=centred)
            _, squares = self._over_ranks(0, xp.einsum("ncs,ncs->c", centred, centred))
            variance = squares / count
            self._update_statistics(mean, variance * (count / (count - 1) if count > 1 else 1.0))
        self._inverse_std = 1.0 / xp.sqrt(variance + self._eps)
        xp.multiply(centred, self._inverse_std[:, None], out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, inverse_std = self.xp, self._inverse_std
        top_diff = self.read_diff(top[0]).reshape(self._sizes)
        bottom_diff = self.write_diff(bottom[0]).reshape(self._sizes)
        if self._use_stored:
            xp.multiply(top_diff, inverse_std[:, None], out=bottom_diff)
            return
        centred = self._centred.get(self._sizes, top_diff.dtype)
        products = xp.einsum("ncs,ncs->c", top_diff, centred)
        count, diffs, products = self._over_ranks(self._sizes[0] * self._sizes[2], top_diff.sum(axis=(0, 2)), products)
        count = max(count, 1)
        mean_diff = diffs / count
        slope = products * (inverse_std * inverse_std / count)
        common = self._scratch.get(self._sizes, top_diff.dtype) if bottom[0] is top[0] else bottom_diff
        xp.multiply(centred, slope[:, None], out=common)
        common += mean_diff[:, None]
        xp.subtract(top_diff, common, out=bottom_diff)
        bottom_diff *= inverse_std[:, None]

    def _over_ranks(self, count: int, *sums: Any) -> list[Any]:
        """Return ``count`` and the sums (C,), each added up over the ranks that the batch is spread over."""
        return self._rank_sums.add(count, *sums) if self.context.normalizes_over_ranks else [count, *sums]

    def _update_statistics(self, mean: Any, variance: Any) -> None:
        for blob, value in zip(self.blobs, (mean, variance, 1.0), strict=True):
            stored = self.write(blob)
            stored *= self._fraction
            stored += value

    @staticmethod
    def _sizes_of(blob: Blob) -> tuple[int, int, int]:
        """Return (N, C, pixels); a blob of one axis has one channel."""
        return blob.shape[0], blob.shape[1] if blob.axis_count > 1 else 1, blob.count_between(2)

    def _refuse_fork_fields(self) -> None:
        parameter = self.parameter.batch_norm_param
        fields = ("scale_bias", "use_weight_bias", "bias_term", "scale_filler", "bias_filler", "filler")
        for field in fields:
            if parameter.HasField(field) and getattr(parameter, field) is not False:
                raise self.error(
                    f"batch_norm_param.{field} belongs to a fork of Caffe, where BatchNorm also scales; "
                    "remove it and add a Scale layer with bias_term: true behind this one"
                )
