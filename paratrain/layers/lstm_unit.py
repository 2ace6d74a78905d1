"""LSTMUnit: the cell of an LSTM, for one time step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.proto import LayerParameter

__all__ = ["LSTMUnitLayer", "activate_gates", "gate_gradients"]


def activate_gates(xp: Any, gates: Any, size: int) -> None:
    """Turn the inputs of gates (..., 4 * size), in the order i, f, o, g, into their values, in place.

    i, f and o become 1 / (1 + exp(-x)), computed as 0.5 tanh(0.5 x) + 0.5, which cannot overflow; g becomes tanh(x).
    """
    sigmoids = gates[..., : 3 * size]
    sigmoids *= 0.5
    xp.tanh(gates, out=gates)
    sigmoids *= 0.5
    sigmoids += 0.5


def gate_gradients(xp: Any, gates: Any, tanh_c: Any, kept_c: Any, dc: Any, dh: Any, gates_diff: Any) -> None:
    """Write the gradient by the inputs of the gates, and add to ``dc`` what comes through h = o tanh(c).

    ``gates`` (..., 4 * size) holds the values i, f, o, g; ``kept_c`` is cont c_prev; ``dc`` and ``dh`` are the gradients
    by c and h.
    """
    size = tanh_c.shape[-1]
    i, f, o, g = (gates[..., k * size : (k + 1) * size] for k in range(4))
    di, df, do, dg = (gates_diff[..., k * size : (k + 1) * size] for k in range(4))
    dc += dh * o * (1 - tanh_c * tanh_c)
    xp.multiply(dc, g, out=di)
    xp.multiply(dc, kept_c, out=df)
    xp.multiply(dh, tanh_c, out=do)
    for value, diff in ((i, di), (f, df), (o, do)):
        diff *= value
        diff *= 1 - value
    xp.multiply(dc, i, out=dg)
    dg *= 1 - g * g


@register_layer("LSTMUnit")
class LSTMUnitLayer(Layer):
    """c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c), where s(x) = 1 / (1 + exp(-x)).

    bottom[0] (1, N, D) is c_prev; bottom[1] (1, N, 4 D) holds i, f, o and g one after the other; bottom[2] (1, N) is
    cont: 0 where a sequence begins, 1 where it goes on. Tops: c and h, (1, N, D). Gradients by c_prev and by the
    four inputs; none by cont. Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Zaremba and
    Sutskever, "Learning to execute", 2014.
    """

    bottom_range = (3, 3)
    top_range = (2, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._gates = Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        if len(shape) != 3 or shape[0] != 1:
            raise self.error(f"{self.bottom_name(0)} is {shape}; expected (1, N, D)", ShapeMismatchError)
        for index, wanted in ((1, (*shape[:2], 4 * shape[2])), (2, shape[:2])):
            if bottom[index].shape != wanted:
                raise self.error(
                    f"{self.bottom_name(index)} is {bottom[index].shape}; expected {wanted}, as "
                    f"{self.bottom_name(0)} is {shape}",
                    ShapeMismatchError,
                )
        for blob in top:
            blob.reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, size = self.xp, bottom[0].shape[2]
        c_prev, gate_input, cont = (self.read(blob) for blob in bottom)
        gates = self._gates.get(gate_input.shape, gate_input.dtype)
        gates[...] = gate_input
        activate_gates(xp, gates, size)
        i, f, o, g = (gates[..., k * size : (k + 1) * size] for k in range(4))
        c, h = (self.write(blob) for blob in top)
        xp.multiply(f, cont[..., None] * c_prev, out=c)
        c += i * g
        xp.tanh(c, out=h)
        h *= o

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[2]:
            raise self.error(
                f"has no gradient by {self.bottom_name(2)}, where sequences begin; remove its propagate_down"
            )
        if not any(propagate_down):
            return
        xp, size = self.xp, bottom[0].shape[2]
        cont = self.read(bottom[2])[..., None]
        gates = self._gates.get(bottom[1].shape, bottom[1].dtype)
        dc = self.read_diff(top[0]).copy()
        gates_diff = self.write_diff(bottom[1]) if propagate_down[1] else xp.empty_like(gates)
        gate_gradients(
            xp, gates, xp.tanh(self.read(top[0])), cont * self.read(bottom[0]), dc, self.read_diff(top[1]), gates_diff
        )
        if propagate_down[0]:
            xp.multiply(dc, cont * gates[..., size : 2 * size], out=self.write_diff(bottom[0]))
