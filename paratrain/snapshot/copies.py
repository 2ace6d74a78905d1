"""What a snapshot holds, copied out of a solver in an instant, and how it is written afterwards by another thread.

The files are those that :meth:`paratrain.net.Net.to_proto` and a SolverState would give, byte for byte. They are put
together from pieces: the values go from the copies to the file, by calls during which other threads go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import write_solver_state, write_weights
from paratrain.net import Net
from paratrain.proto import BlobProto, LayerParameter, NetParameter, SolverState, write_pieces
from paratrain.proto.wire import encode_header, fields
from paratrain.snapshot.carried import write_carried
from paratrain.snapshot.names import SnapshotNames
from paratrain.snapshot.solverstate import POLICY_FIELDS

__all__ = ["LayerCopy", "SnapshotCopy", "copy_weights"]

Array = npt.NDArray[Any]
Piece = bytes | memoryview

# Bytes that a file needs beyond its values, for each blob: names, shapes, HDF5's groups.
_OVERHEAD_BYTES = 4096


@dataclass(frozen=True)
class LayerCopy:
    """The parameters of one layer. ``owned`` are the indices of those that it does not share from a layer before."""

    parameter: LayerParameter
    data: list[Array]
    diff: list[Array] | None
    owned: frozenset[int]


def copy_weights(net: Net, write_diff: bool) -> list[LayerCopy]:
    """Copy all parameters of ``net``, shared ones once, and their gradients when asked."""
    copies: dict[tuple[int, int], Array] = {}

    def copy(values: Array) -> Array:
        key = (int(values.__array_interface__["data"][0]), values.size)
        if key not in copies:
            copies[key] = values.reshape(-1).copy()
        return copies[key].reshape(values.shape)

    owned: dict[str, set[int]] = {}
    for entry in net.parameters.entries:
        owned.setdefault(entry.layer_name, set()).add(entry.blob_index)
    return [
        LayerCopy(
            layer.parameter,
            [copy(blob.read_data(None)) for blob in layer.blobs],
            [copy(blob.read_diff(None)) for blob in layer.blobs] if write_diff else None,
            frozenset(owned.get(layer.name, ())),
        )
        for layer in net.layers
    ]


@dataclass(frozen=True)
class SnapshotCopy:
    """The weights and the state of one iteration. The arrays are its own."""

    net_name: str
    layers: Sequence[LayerCopy]
    iteration: int
    current_step: int
    history: Sequence[Array]
    """One blob after the other, as :func:`paratrain.snapshot.solverstate.shape_history` gives them."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What the policies remember; a binary state has a place for some of it."""
    carried: Mapping[str, Array] = field(default_factory=dict)
    """What layers take over to the next batch, on all ranks: see paratrain.snapshot.carried."""

    @property
    def size_bytes(self) -> int:
        """About as large as the files will be, and never smaller."""
        blobs = [*self.history, *self.carried.values()]
        for layer in self.layers:
            blobs += [*layer.data, *(layer.diff or ())]
        overhead = (len(blobs) + len(self.layers)) * _OVERHEAD_BYTES
        return sum(blob.nbytes for blob in blobs) + overhead

    def write_model(self, names: SnapshotNames) -> None:
        """Write the weights; the file is whole or not there. Raises SnapshotError."""
        if names.hdf5:
            data = {
                layer.parameter.name: {i: values for i, values in enumerate(layer.data) if i in layer.owned}
                for layer in self.layers
            }
            diff = {layer.parameter.name: dict(enumerate(layer.diff or ())) for layer in self.layers}
            write_weights(names.model, data, diff if any(layer.diff is not None for layer in self.layers) else None)
        else:
            write_pieces(names.model, "NetParameter", self._model_pieces())

    def write_state(self, names: SnapshotNames) -> None:
        """Write the state of the solver; the file is whole or not there. Raises SnapshotError."""
        if names.hdf5:
            write_solver_state(
                names.state,
                iteration=self.iteration,
                learned_net=names.model,
                current_step=self.current_step,
                history=self.history,
            )
        else:
            write_pieces(names.state, "SolverState", self._state_pieces(names.model))

    def write_all(self, names: SnapshotNames) -> list[str]:
        """Write the files that there are; return their paths. Raises SnapshotError."""
        self.write_model(names)
        self.write_state(names)
        if not self.carried:
            return [names.model, names.state]
        write_carried(names.carried, self.carried)
        return [names.model, names.state, names.carried]

    def _model_pieces(self) -> list[Piece]:
        pieces: list[Piece] = [NetParameter(name=self.net_name).SerializeToString()]
        for layer in self.layers:
            parameter = LayerParameter()
            parameter.CopyFrom(layer.parameter)
            parameter.ClearField("blobs")
            gradients: Sequence[Array | None] = layer.diff or [None] * len(layer.data)
            blobs = [_blob_pieces(values, diff) for values, diff in zip(layer.data, gradients, strict=True)]
            number = LayerParameter.DESCRIPTOR.fields_by_name["blobs"].number
            pieces += _message(NetParameter, "layer", _insert(parameter.SerializeToString(), number, blobs))
        return pieces

    def _state_pieces(self, learned_net: str) -> list[Piece]:
        state = SolverState(iter=self.iteration, learned_net=learned_net, current_step=self.current_step)
        for name in POLICY_FIELDS:
            if name in self.policy:
                setattr(state, name, self.policy[name])
        number = SolverState.DESCRIPTOR.fields_by_name["history"].number
        return _insert(state.SerializeToString(), number, [_blob_pieces(values, None) for values in self.history])


def _blob_pieces(values: Array, diff: Array | None) -> list[Piece]:
    """A BlobProto as :func:`paratrain.proto.array_to_blob` makes it, in the order of its field numbers."""
    is_double = values.dtype == np.float64
    shape = BlobProto()
    shape.shape.dim.extend(values.shape)
    packed: list[Piece] = []
    for name, array in (("data", values), ("diff", diff)):
        if array is not None and array.size:
            kept = np.ascontiguousarray(array, "<f8" if is_double else "<f4").reshape(-1)
            number = BlobProto.DESCRIPTOR.fields_by_name[f"double_{name}" if is_double else name].number
            packed += [encode_header(number, kept.nbytes), kept.view(np.uint8).data]
    header = shape.SerializeToString()
    return [header, *packed] if is_double else [*packed, header]


def _insert(serialized: bytes, number: int, messages: list[list[Piece]]) -> list[Piece]:
    """A serialized message with more fields ``number`` in it, at their place in the order of the numbers."""
    place = 0
    for found in fields(serialized):
        if found.number > number:
            break
        place = found.stop
    pieces: list[Piece] = [serialized[:place]]
    for message in messages:
        pieces += [encode_header(number, sum(map(len, message))), *message]
    return [*pieces, serialized[place:]]


def _message(kind: type[NetParameter], name: str, pieces: list[Piece]) -> list[Piece]:
    return [encode_header(kind.DESCRIPTOR.fields_by_name[name].number, sum(map(len, pieces))), *pieces]
