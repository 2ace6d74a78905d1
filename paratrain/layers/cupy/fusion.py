"""Layers on the GPU that end in a bias and perhaps in the ReLU that follows, forward and backward."""

from __future__ import annotations

from typing import Any

from paratrain.backends.cupy.bias import Bias
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.proto import LayerParameter

__all__ = ["EndsInReLU"]


class EndsInReLU(AppliesReLU, CupyLayer):
    """A layer whose blob 1, if there is one, is a bias for each channel of its top. Mixed in before the plain layer.

    Where a ReLU works in place on its only top, ``forward`` may compute that too (see :meth:`take_relu`), and ``backward``.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.bias = Bias(self.forms)

    @property
    def bias_data(self) -> Any | None:
        """The bias on the GPU, for reading; None where there is none."""
        return self.blobs[1].data_memory.device(self.forms.device) if len(self.blobs) > 1 else None

    def backward_to_product(self, top: Blob, form: Form, seen_as: Form | None = None) -> Any:
        """Return the gradient of the top in ``form``, before the ReLU if that left its backward pass to this layer (the diff of
        the top is overwritten then). Its sums by channels, of the same bytes ``seen_as`` another form if need be, are the
        gradient of the bias, if that learns.
        """
        dy, relu = self.copies.read(top.diff_memory, form, "diff"), self.relu_left
        through, dx = None, dy
        if relu is not None:
            y, slope = self.copies.read(top.data_memory, form, "top"), relu.fused_slope
            assert slope is not None
            dx = self.forms.write(top.diff_memory, form)
            through = (y, dx, slope)
        bias_diff, accumulate = None, False
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            accumulate = self.accumulates(1)
            bias_diff = self.blobs[1].diff_memory.mutable_device(self.forms.device)[: self.blobs[1].count]
        self.bias.backward(dy, seen_as or form, bias_diff, accumulate=accumulate, relu=through)
        return dx
