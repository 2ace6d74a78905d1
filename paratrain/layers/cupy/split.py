"""Split on the GPU: the gradients of all tops are added in one kernel."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.cupy.eltwise import Eltwise
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.split import SplitLayer
from paratrain.proto import LayerParameter

__all__ = ["CupySplitLayer"]


@register_layer("Split", backend="cupy")
class CupySplitLayer(CupyLayer, SplitLayer):
    """Split; the tops share the bottom's memory in whatever form, gradients are added in the form that most come in."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._eltwise = Eltwise(self.forms)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        super().forward(bottom, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        own = bottom[0].diff_memory
        given = [blob.diff_memory for blob in top if not blob.diff_is_untouched]
        if not propagate_down[0] or (len(given) == 1 and given[0] is own):
            return
        # The bottom's data votes too: what has made them computes backward in their form.
        form = self.common_form([bottom[0].data_memory, *given], bottom[0].shape)
        form = self.writable(form, own)
        arrays = [self.copies.read(memory, form, str(index)) for index, memory in enumerate(given)]
        total = self.forms.write(own, form)
        if arrays:
            self._eltwise.sum(form, arrays, total)
        else:
            total.fill(0)
