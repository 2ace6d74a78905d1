"""Eltwise in the layout that most bottoms come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.backends.onednn.sum import OneDnnSum
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.eltwise import EltwiseLayer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.layers.onednn.arrays import ByValueLayer
from paratrain.layers.onednn.normalization import OneDnnScaleLayer
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import EltwiseParameter

__all__ = ["OneDnnEltwiseLayer"]


@register_layer("Eltwise", backend="onednn")
class OneDnnEltwiseLayer(AppliesReLU, ByValueLayer[OneDnnSum], EltwiseLayer):
    """Eltwise by numpy on the arranged buffers, but for sums without coefficients: these are one primitive, which can end in
    a ReLU.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.keeps_zeros = self._stable or self._operation != EltwiseParameter.PROD
        # What a net that plans memory decides: see paratrain.net.sharing.
        self.receiver: OneDnnScaleLayer | None = None
        """The layer that has made the bottom that is not :attr:`shared_bottom`, and runs backward next."""
        self.hands_over = False
        """Whether it may read the top's diff instead of a copy: all layers are running backward."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.share_memory(bottom, top)
        if not self.is_plain_sum or not self.begin_forward(bottom, top):
            self.take_relu(False)
            super().forward(bottom, top)
            return
        layout = self.layout
        arrays = [self.read_arranged(blob, blob.data_memory, "data") for blob in bottom]
        y = layout.flat(self.arranger.write(top[0].data_memory, layout))
        kernel = self.kernel((y.size, layout.dtype), lambda: OneDnnSum(self.arranger, y.size, layout.dtype))
        assert kernel is not None
        kernel.run(arrays, y, self.take_relu(True))
        self.end()

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not self.is_plain_sum or not self.begin_backward(bottom, top):
            super().backward(top, propagate_down, bottom)
            return
        if self.hands_over and self.receiver is not None and self.receiver.joined is not None:
            self.receiver.handed = top[0].diff_memory
            self.end()
            return
        dy = self.read_arranged(top[0], top[0].diff_memory, "diff")
        for blob, down in zip(bottom, propagate_down, strict=True):
            if down and blob.diff_memory is not top[0].diff_memory:
                np.copyto(self.layout.flat(self.arranger.write(blob.diff_memory, self.layout)), dy)
        self.end()
