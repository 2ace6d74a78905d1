"""Pooling on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import Pooling, PoolingGeometry
from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.pooling import CupyPooling
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.step_key import StepKey
from paratrain.layers.effective_batch import rows_of_rank
from paratrain.layers.pooling import PoolingLayer
from paratrain.proto import TRAIN, LayerParameter
from paratrain.proto.caffe_pb2 import PoolingParameter

__all__ = ["CupyPoolingLayer"]


@register_layer("Pooling", backend="cupy")
class CupyPoolingLayer(CupyLayer, PoolingLayer):
    """MAX and AVE in the form that the bottom comes in, a second top in plain order. STOCHASTIC draws in plain order, and takes
    its means in TEST by the plain layer.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._draws = parameter.pooling_param.pool == PoolingParameter.STOCHASTIC and context.phase == TRAIN
        self._means = parameter.pooling_param.pool == PoolingParameter.STOCHASTIC and not self._draws
        self._key = StepKey(self, "pooling")
        self._numbers = Buffer(self.xp)

    def before_replay(self) -> None:
        if self._draws:
            self._key.write()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = not self._means
        if self._means:
            super().forward(bottom, top)
            return
        self.before_replay()
        form = self.writable(self.found(bottom[0]), bottom[0].diff_memory, top[0].data_memory)
        if self._draws:
            form = Form.of(form.shape, self.context.dtype)
        self._channels_last = form.channels_last
        x = self.copies.read(bottom[0].data_memory, form)
        y = self.forms.write(top[0].data_memory, form.like(top[0].shape))
        if self._draws:
            self._kernels.forward(x, y, self._draw(top[0]))
        else:
            self._kernels.pool(x, form, y, keeps=self.needs_backward or len(top) > 1)
        if len(top) > 1:
            plain = Form.of(top[1].shape, self.context.dtype)
            self._kernels.write_indices(self.forms.write(top[1].data_memory, plain))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if self._means:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            dtype = self.forms.found(top[0].diff_memory, top[0].shape).dtype
            form = Form.of(bottom[0].shape, dtype, channels_last=self._channels_last)
            form = self.writable(form, bottom[0].diff_memory)
            dy = self.copies.read(top[0].diff_memory, form.like(top[0].shape), "diff")
            self._kernels.unpool(dy, form, self.forms.write(bottom[0].diff_memory, form))

    def _make_pooling(self, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> Pooling:
        return super()._make_pooling(geometry, dtype) if self._means else self.backend.pooling(geometry, dtype)

    def _draw(self, top: Blob) -> Any:
        """Return a number for each window, see :func:`paratrain.layers.effective_batch.draw_uniform`."""
        numbers, rows = self._numbers.get((top.count,), top.dtype), rows_of_rank(self, top.shape[0])
        inner = top.count_between(1)
        self.kernels("random", top.dtype).launch(
            "uniform_rows", top.count, numbers, self._key.array, np.uint64(0), inner, rows.start, rows.step
        )
        return numbers

    @property
    def _kernels(self) -> CupyPooling:
        assert isinstance(self._pooling, CupyPooling)
        return self._pooling
