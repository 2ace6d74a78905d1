"""RNN: the plain recurrent network."""

from __future__ import annotations

from typing import Any

from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.recurrent import RecurrentLayer
from paratrain.proto import LayerParameter

__all__ = ["RNNLayer"]


@register_layer("RNN")
class RNNLayer(RecurrentLayer):
    """h_t = tanh(W_xh x_t + b_h + W_xh_static x_static + W_hh (cont_t h_{t-1})), o_t = tanh(W_ho h_t + b_o); the top is o.

    Bottoms: x, cont, perhaps x_static; with ``expose_hidden`` h_0, and h_T becomes a top (see :class:`RecurrentLayer`).
    Blobs, with H for num_output: W_xh (H, D), b_h (H,), W_xh_static (H, D_static) where there is a static input,
    W_hh (H, H), W_ho (H, H), b_o (H,). Gradients: backpropagation through the T steps of the batch.
    """

    gate_count = 1
    state_names = ("h_0",)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._output_diff, self._h_diff = Buffer(self.xp), Buffer(self.xp)

    def add_hidden_blobs(self, dtype: Any) -> None:
        recurrent, size = self.parameter.recurrent_param, self._size
        for _ in range(2):
            add_learnable_blob(self, (size, size), dtype, recurrent.weight_filler)
        add_learnable_blob(self, (size,), dtype, recurrent.bias_filler)

    def run(self, gates: Any, kept_h: Any, cont: Any, states: list[Any], top: Any) -> list[Any]:
        xp, weights = self.xp, self.hidden(0).T
        (h,) = states
        for t in range(len(gates)):
            xp.multiply(cont[t], h, out=kept_h[t])
            h = gates[t]  # becomes h_t in place, which backward needs
            self.backend.matrix_product(kept_h[t], weights, h, accumulate=True)
            self.show("Forward", f"h_input_{t + 1}", f"h_neuron_input_{t + 1}", h)
            xp.tanh(h, out=h)
            self.show("Forward", f"h_neuron_{t + 1}", f"h_{t + 1}", h)
        flat = top.reshape(-1, self._size)
        self.backend.matrix_product(gates.reshape(flat.shape), self.hidden(1).T, flat)
        top += self.hidden(2)
        xp.tanh(top, out=top)
        for t in range(len(gates) if self._shows else 0):
            self.show("Forward", f"o_neuron_{t + 1}", f"o_{t + 1}", top[t])
        return [h]

    def run_back(self, gates: Any, kept_h: Any, cont: Any, top: Any, top_diff: Any, gates_diff: Any) -> None:
        xp, size, first = self.xp, self._size, self._first_hidden
        output_diff, h_diff = (buffer.get(top.shape, top.dtype) for buffer in (self._output_diff, self._h_diff))
        xp.multiply(top_diff, 1 - top * top, out=output_diff)
        flat_output = output_diff.reshape(-1, size)
        self.add_product(first + 1, flat_output, gates.reshape(-1, size))
        if self.param_propagate_down[first + 2]:
            bias_diff = self.write_diff(self.blobs[first + 2])
            bias_diff += flat_output.sum(axis=0)
        self.backend.matrix_product(flat_output, self.hidden(1), h_diff.reshape(-1, size))
        carried = xp.zeros_like(top[0])
        for t in reversed(range(len(gates))):
            xp.add(h_diff[t], carried, out=gates_diff[t])
            gates_diff[t] *= 1 - gates[t] * gates[t]
            self.show("Backward", f"h_neuron_{t + 1}", f"h_neuron_input_{t + 1}", gates_diff[t])
            self.backend.matrix_product(gates_diff[t], self.hidden(0), carried)
            carried *= cont[t]
            self.show("Backward", f"h_conted_{t}", f"h_{t}", carried)
        self.add_product(first, gates_diff.reshape(-1, size), kept_h.reshape(-1, size))
