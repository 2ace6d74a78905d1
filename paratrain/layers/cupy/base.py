"""What the layers with kernels on the GPU share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.forms import Copies, Form
from paratrain.backends.cupy.modules import KernelModule
from paratrain.blob import Blob, Memory, SyncedMemory
from paratrain.layers.base import Layer, LayerContext
from paratrain.proto import LayerParameter

__all__ = ["CupyLayer"]


class CupyLayer(Layer):
    """A layer with kernels on the GPU, mixed in before the plain layer, whose methods run where the kernels do not apply.

    ``is_capturable`` says whether the last forward pass, and the backward pass that follows it, only gave work to the stream:
    no array was allocated, nothing was read on the host. Such passes can be recorded and run again as a CUDA graph.
    """

    is_capturable = False

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        assert isinstance(context.backend, CupyBackend)
        self.gpu: CupyBackend = context.backend
        self.forms = context.backend.forms
        self.copies = Copies(self.forms)

    def kernels(self, family: str, dtype: Any = np.float32) -> KernelModule:
        """Return the kernels of a family for values of ``dtype``."""
        return self.forms.kernels(family, dtype)

    def accumulates(self, index: int) -> bool:
        adds, work = super().accumulates(index), self.forms.parameter_work
        if adds and work is not None:
            work.settle(self.blobs[index].diff_memory.mutable_device(self.forms.device))
        return adds

    def found(self, blob: Blob) -> Form:
        """The form in which the newest values of a blob lie."""
        return self.forms.found(blob.data_memory, blob.shape)

    def common_form(self, memories: Sequence[Memory], shape: tuple[int, ...]) -> Form:
        """The form in which most of these memories hold values of ``shape``; of equally many the first."""
        counts: dict[Form, int] = {}
        for memory in memories:
            form = self.forms.found(memory, shape)
            counts[form] = counts.get(form, 0) + 1
        return max(counts, key=lambda form: counts[form])

    @staticmethod
    def may_arrange(*memories: Memory) -> bool:
        """Whether values may be left there in any form: the memories are blocks of their own, not parts of others."""
        return all(isinstance(memory, SyncedMemory) for memory in memories)

    def writable(self, form: Form, *memories: Memory) -> Form:
        """``form`` where values may be left in it in all of these memories, else the plain one."""
        return form if self.may_arrange(*memories) else Form.of(form.shape, self.context.dtype)

    def gradient_form(self, form: Form, bottom: Blob, top: Blob) -> Form:
        """The form in which a layer that works value by value, and has worked in ``form``, is to compute backward.

        In place that is the form in which the gradient comes: a memory has one array for all forms but the plain one, and two
        layers that write it in different forms would allocate it anew in every pass.
        """
        memory = bottom.diff_memory
        return self.writable(self.forms.found(memory, bottom.shape), memory) if memory is top.diff_memory else form
