"""What RNN and LSTM share: time steps, sequences that begin and go on, and the hidden state between batches."""

from __future__ import annotations

import abc
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.learnable import add_learnable_blob
from paratrain.proto import LayerParameter

__all__ = ["RecurrentLayer"]

logger = logging.getLogger(__name__)


class RecurrentLayer(Layer):
    """A layer that goes through T time steps of N independent streams, and remembers the last state of each.

    bottom[0] is x (T, N, ...), all values of a step and stream taken together; bottom[1] (T, N) is cont, which the state
    is multiplied by before each step: 0 where a sequence begins, 1 where it goes on. bottom[2], where there is one more
    than the rest, is a static input (N, ...), which every step sees. top[0] is (T, N, num_output).

    The first step follows the last one of the forward pass before (zeros at first, or when N changes). With
    ``expose_hidden`` it follows the states in the last bottoms instead, each (1, N, num_output), and those after the last
    step are further tops. As in Caffe, gradients do not go from one batch to the next: nothing flows into the states at
    the bottom (their diffs are 0) or comes from those at the top, nor is there one by cont (0).

    Caffe builds a net with a layer for each part of each step, and so names the blobs of ``debug_info``. Here the steps
    are a loop of matrix products over the whole batch; those that do not depend on the step before are one for all T.
    The parameter blobs and their order are Caffe's. T may change between passes, where Caffe keeps the first.
    """

    bottom_range = (2, None)
    top_range = (1, None)
    gate_count: ClassVar[int]
    """Rows of the weights for each output."""
    state_names: ClassVar[tuple[str, ...]]

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:
        """Only where the state does not go from one batch to the next."""
        return parameter.recurrent_param.expose_hidden

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        recurrent = parameter.recurrent_param
        self._size = recurrent.num_output
        if self._size < 1:
            raise self.error("recurrent_param.num_output must be given and be at least 1")
        self._exposes = recurrent.expose_hidden
        self._shows = recurrent.debug_info and context.rank == 0
        self._states: list[Blob] = []
        self._static: int | None = None
        self._gates, self._gates_diff, self._kept_h = Buffer(self.xp), Buffer(self.xp), Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    @abc.abstractmethod
    def add_hidden_blobs(self, dtype: Any) -> None:
        """Append the blobs that follow those of the inputs."""

    @abc.abstractmethod
    def run(self, gates: Any, kept_h: Any, cont: Any, states: list[Any], top: Any) -> list[Any]:
        """Go through the steps and write ``top`` (T, N, num_output); return the states after the last, (N, num_output).

        ``gates`` (T, N, gate_count * num_output) holds what the inputs give, and may be overwritten; ``kept_h``
        (T, N, num_output) takes cont h of the step before; cont is (T, N, 1).
        """

    @abc.abstractmethod
    def run_back(self, gates: Any, kept_h: Any, cont: Any, top: Any, top_diff: Any, gates_diff: Any) -> None:
        """Write the gradient by ``gates``, from the last step to the first, and add to those of the hidden blobs."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        exposed = len(self.state_names) if self._exposes else 0
        if not 0 <= len(bottom) - 2 - exposed <= 1 or len(top) != 1 + exposed:
            states = f", {' and '.join(self.state_names)}" if exposed else ""
            raise self.error(
                f"takes x, cont, perhaps a static input{states} and makes {1 + exposed} tops; the prototxt gives "
                f"{len(bottom)} bottoms and {len(top)} tops (expose_hidden is {str(self._exposes).lower()})"
            )
        self._static = 2 if len(bottom) == 3 + exposed else None
        self._check_inputs(bottom)
        recurrent, dtype, rows = self.parameter.recurrent_param, bottom[0].dtype, self.gate_count * self._size
        add_learnable_blob(self, (rows, bottom[0].count_between(2)), dtype, recurrent.weight_filler)
        add_learnable_blob(self, (rows,), dtype, recurrent.bias_filler)
        if self._static is not None:
            add_learnable_blob(self, (rows, bottom[2].count_between(1)), dtype, recurrent.weight_filler)
        if not self._exposes:
            self._states = [Blob((0,), dtype) for _ in self.state_names]
        self._first_hidden = len(self.blobs)
        self.add_hidden_blobs(dtype)

    def _check_inputs(self, bottom: Sequence[Blob]) -> None:
        x, cont = bottom[0], bottom[1]
        if x.axis_count < 3 or 0 in x.shape[:2]:
            raise self.error(
                f"{self.bottom_name(0)} is {x.shape}; expected (T, N, ...), at least one of each", ShapeMismatchError
            )
        if cont.shape != x.shape[:2]:
            raise self.error(
                f"{self.bottom_name(1)} is {cont.shape}; expected {x.shape[:2]}, the first axes of {self.bottom_name(0)}",
                ShapeMismatchError,
            )
        if self._static is not None and (bottom[2].axis_count < 2 or bottom[2].shape[0] != x.shape[1]):
            raise self.error(
                f"{self.bottom_name(2)} is {bottom[2].shape}; expected ({x.shape[1]}, ...), a row for each stream",
                ShapeMismatchError,
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        self._check_inputs(bottom)
        inputs = [(0, bottom[0].count_between(2), self.blobs[0])]
        if self._static is not None:
            inputs.append((2, bottom[2].count_between(1), self.blobs[2]))
        for index, count, weights in inputs:
            if count != weights.shape[1]:
                raise self.error(
                    f"{self.bottom_name(index)} {bottom[index].shape} has {count} values for each step and stream; "
                    f"the weights {weights.shape} take {weights.shape[1]}",
                    ShapeMismatchError,
                )
        steps, streams = bottom[0].shape[:2]
        state_shape = (1, streams, self._size)
        for index in self._state_bottoms(bottom):
            if bottom[index].shape != state_shape:
                raise self.error(
                    f"{self.bottom_name(index)} is {bottom[index].shape}; a state is {state_shape}", ShapeMismatchError
                )
        top[0].reshape(steps, streams, self._size)
        for blob in top[1:]:
            blob.reshape(*state_shape)
        for state in self._states:
            if state.shape != state_shape[1:]:
                had_values = state.count > 0
                state.reshape(*state_shape[1:])
                if had_values:
                    state.data[...] = 0

    def _state_bottoms(self, bottom: Sequence[Blob]) -> range:
        return range(len(bottom) - len(self.state_names), len(bottom)) if self._exposes else range(0)

    def carried_blobs(self) -> Sequence[Blob]:
        """The states after the last step, (N, num_output) each, unless they are exposed."""
        return self._states

    def reset(self) -> None:
        """Forget the hidden state: the next forward pass begins with zeros (Caffe's ``Reset``)."""
        for state in self._states:
            state.data[...] = 0

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x = self.read(bottom[0])
        (steps, streams), rows = x.shape[:2], self.blobs[0].shape[0]
        gates = self._gates.get((steps, streams, rows), x.dtype)
        weights = self.read(self.blobs[0])
        self.backend.matrix_product(x.reshape(steps * streams, -1), weights.T, gates.reshape(-1, rows))
        gates += self.read(self.blobs[1])
        if self._static is not None:
            static = self.xp.empty((streams, rows), x.dtype)
            self.backend.matrix_product(self.read(bottom[2]).reshape(streams, -1), self.read(self.blobs[2]).T, static)
            gates += static
        states = [self.read(bottom[index])[0] for index in self._state_bottoms(bottom)]
        states = states or [self.read(state) for state in self._states]
        kept_h = self._kept_h.get((steps, streams, self._size), x.dtype)
        last = self.run(gates, kept_h, self.read(bottom[1])[..., None], states, self.write(top[0]))
        for blob, state in zip(top[1:], last, strict=False):
            self.write(blob)[0] = state
        for blob, state in zip(self._states, last, strict=False):
            self.write(blob)[...] = state

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        x, size = self.read(bottom[0]), self._size
        (steps, streams), rows = x.shape[:2], self.blobs[0].shape[0]
        gates = self._gates.get((steps, streams, rows), x.dtype)
        kept_h = self._kept_h.get((steps, streams, size), x.dtype)
        gates_diff = self._gates_diff.get(gates.shape, x.dtype)
        cont = self.read(bottom[1])[..., None]
        self.run_back(gates, kept_h, cont, self.read(top[0]), self.read_diff(top[0]), gates_diff)
        flat_diff = gates_diff.reshape(-1, rows)
        self._input_back(bottom[0], x.reshape(steps * streams, -1), flat_diff, 0, propagate_down[0])
        if self.param_propagate_down[1]:
            bias_diff = self.write_diff(self.blobs[1])
            bias_diff += flat_diff.sum(axis=0)
        if self._static is not None:
            static = self.read(bottom[2]).reshape(streams, -1)
            self._input_back(bottom[2], static, gates_diff.sum(axis=0), 2, propagate_down[2])
        for index in (1, *self._state_bottoms(bottom)):
            if propagate_down[index]:
                self.write_diff(bottom[index])[...] = 0

    def _input_back(self, blob: Blob, x: Any, diff: Any, index: int, down: bool) -> None:
        self.add_product(index, diff, x)
        if down:
            self.backend.matrix_product(diff, self.read(self.blobs[index]), self.write_diff(blob).reshape(x.shape))

    # -- for subclasses ------------------------------------------------------------------------------------------

    def hidden(self, index: int) -> Any:
        """Hidden blob ``index``, for reading."""
        return self.read(self.blobs[self._first_hidden + index])

    def add_product(self, index: int, diff: Any, x: Any) -> None:
        """Add diff^T x, matrices, to the gradient of blob ``index`` if that learns."""
        if self.param_propagate_down[index]:
            self.backend.matrix_product(diff.T, x, self.write_diff(self.blobs[index]), accumulate=True)

    def show(self, direction: str, layer: str, blob: str, values: Any) -> None:
        """With ``debug_info``, log the mean absolute value of an inner blob, in the words of Caffe's Net."""
        if self._shows:
            kind = "top blob" if direction == "Forward" else "bottom blob"
            half = "data" if direction == "Forward" else "diff"
            mean = float(abs(values).mean(dtype=np.float64))
            logger.info("    [%s] Layer %s_%s, %s %s %s: %g", direction, self.name, layer, kind, blob, half, mean)
