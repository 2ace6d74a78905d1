"""Split: gradients are added up as they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.onednn.names import DataType
from paratrain.backends.onednn.sum import OneDnnSum
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.onednn.arrays import common_layout, owns_memory
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.split import SplitLayer
from paratrain.proto import LayerParameter

__all__ = ["OneDnnSplitLayer", "add_up"]

_CHUNK = 1 << 16  # values: what has been added up so far stays in a core's cache


def add_up(arrays: Sequence[Any], total: Any) -> None:
    """total = the sum of the flat arrays, one or more, in order; ``total`` may be the first of them.

    With one thread this is quicker than a primitive for each array, which would read and write the whole total each time.
    """
    if len(arrays) == 1:
        if arrays[0] is not total:
            total[...] = arrays[0]
        return
    for start in range(0, total.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        out = total[part]
        np.add(arrays[0][part], arrays[1][part], out=out)
        for array in arrays[2:]:
            np.add(out, array[part], out=out)


@register_layer("Split", backend="onednn")
class OneDnnSplitLayer(OneDnnLayer[OneDnnSum], SplitLayer):
    """Split; the tops share the bottom's memory in whatever layout, gradients are added in the layout that most come in, or
    in that of the top whose diff is the bottom's.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.summed_into: int | None = None
        """The top in whose diff all are added up, in a net that plans memory: see paratrain.net.sharing."""

    def share_memory(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().share_memory(bottom, top)
        index = self.summed_into
        if index is not None and top[index].diff_memory is not bottom[0].diff_memory:
            top[index].share_diff(bottom[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        own = bottom[0].diff_memory
        given = [blob.diff_memory for blob in top if not blob.diff_is_untouched]
        if not propagate_down[0] or (len(given) == 1 and given[0] is own):
            return
        given.sort(key=lambda memory: memory is not own)  # what lies there already comes first
        # Else the bottom's data votes too: what has made them computes backward in their layout.
        voting = given[:1] if given and given[0] is own else [bottom[0].data_memory, *given]
        layout = common_layout(voting, bottom[0].shape) if owns_memory(own) else None
        if layout is None or layout.is_plain or not given:
            super().backward(top, propagate_down, bottom)
            return
        arrays = [layout.flat(self.copies.read(memory, layout, str(index))) for index, memory in enumerate(given)]
        total = layout.flat(self.arranger.write(own, layout))
        is_plain_sum = layout.dtype == DataType.F32 and self.arranger.engine.library.thread_count == 1
        if len(arrays) == 1 or is_plain_sum:
            add_up(arrays, total)
            return
        count, dtype = total.size, layout.dtype
        kernel = self.kernel((count, dtype), lambda: OneDnnSum(self.arranger, count, dtype))
        assert kernel is not None
        kernel.run(arrays, total)
