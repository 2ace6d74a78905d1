"""LSTM: long short-term memory over time steps."""

from __future__ import annotations

from typing import Any

from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.lstm_unit import activate_gates, gate_gradients
from paratrain.layers.recurrent import RecurrentLayer
from paratrain.proto import LayerParameter

__all__ = ["LSTMLayer"]


@register_layer("LSTM")
class LSTMLayer(RecurrentLayer):
    """(i, f, o, g) = W_xc x_t + b_c + W_xc_static x_static + W_hc (cont_t h_{t-1}); the cell is that of LSTMUnit.

    c_t = cont_t s(f) c_{t-1} + s(i) tanh(g), h_t = s(o) tanh(c_t); the top is h. Bottoms: x, cont, perhaps x_static; with
    ``expose_hidden`` h_0 and c_0, and h_T and c_T become tops (see :class:`RecurrentLayer`). Blobs, with H for num_output:
    W_xc (4 H, D), b_c (4 H,), W_xc_static (4 H, D_static) where there is a static input, W_hc (4 H, H). Gradients:
    backpropagation through the T steps of the batch. Source: Donahue et al., "Long-term recurrent convolutional networks
    for visual recognition and description", 2015.
    """

    gate_count = 4
    state_names = ("h_0", "c_0")

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept_c, self._tanh_c = Buffer(self.xp), Buffer(self.xp)

    def add_hidden_blobs(self, dtype: Any) -> None:
        add_learnable_blob(self, (4 * self._size, self._size), dtype, self.parameter.recurrent_param.weight_filler)

    def run(self, gates: Any, kept_h: Any, cont: Any, states: list[Any], top: Any) -> list[Any]:
        xp, size, weights = self.xp, self._size, self.hidden(0).T
        h, c = states
        kept_c, tanh_c = (buffer.get(kept_h.shape, kept_h.dtype) for buffer in (self._kept_c, self._tanh_c))
        for t in range(len(gates)):
            xp.multiply(cont[t], h, out=kept_h[t])
            xp.multiply(cont[t], c, out=kept_c[t])
            self.backend.matrix_product(kept_h[t], weights, gates[t], accumulate=True)
            self.show("Forward", f"gate_input_{t + 1}", f"gate_input_{t + 1}", gates[t])
            activate_gates(xp, gates[t], size)
            i, f, o, g = (gates[t, :, k * size : (k + 1) * size] for k in range(4))
            c = f * kept_c[t]
            c += i * g
            xp.tanh(c, out=tanh_c[t])
            h = top[t]
            xp.multiply(o, tanh_c[t], out=h)
            self.show("Forward", f"unit_{t + 1}", f"c_{t + 1}", c)
            self.show("Forward", f"unit_{t + 1}", f"h_{t + 1}", h)
        return [h, c]

    def run_back(self, gates: Any, kept_h: Any, cont: Any, top: Any, top_diff: Any, gates_diff: Any) -> None:
        xp, size, weights = self.xp, self._size, self.hidden(0)
        kept_c, tanh_c = (buffer.get(kept_h.shape, kept_h.dtype) for buffer in (self._kept_c, self._tanh_c))
        dh, dc = xp.zeros_like(top[0]), xp.zeros_like(top[0])
        for t in reversed(range(len(gates))):
            dh += top_diff[t]
            gate_gradients(xp, gates[t], tanh_c[t], kept_c[t], dc, dh, gates_diff[t])
            self.show("Backward", f"unit_{t + 1}", f"gate_input_{t + 1}", gates_diff[t])
            dc *= cont[t] * gates[t, :, size : 2 * size]
            self.backend.matrix_product(gates_diff[t], weights, dh)
            dh *= cont[t]
            self.show("Backward", f"h_conted_{t}", f"h_{t}", dh)
        self.add_product(self._first_hidden, gates_diff.reshape(-1, 4 * size), kept_h.reshape(-1, size))
